"""`check`: Redis, the cache, other deployments on it, and the workers that answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from enrich import wiring
from enrich.cli.checks.findings import Findings
from enrich.cli.screen import plural
from enrich.errors import AccessRefused
from enrich.ledger import Ledger, server
from enrich.ledger.deployment import Configuration, disagreements, place_of
from enrich.redis_client import connect
from enrich.settings import Settings, without_password
from enrich.worker.remote import NoWorker, Workers


def look_at(settings: Settings, findings: Findings) -> None:
    url = settings.redis_url.get_secret_value()
    client = connect(url)
    info = server.look(client)
    findings.ok(f"{server.version(info)} at {without_password(url)}")
    if info:
        for mark, text in memory_lines(info, settings):
            (findings.ok if mark == "ok" else findings.warn)(text)
    else:
        findings.warn(
            "its version and memory policy cannot be seen (add +info to the ACL of its user): "
            "it must be Redis 6.2 or newer or Valkey, with maxmemory-policy noeviction"
        )
    server.try_rights(client, settings.enrich_redis_prefix)
    findings.ok("its user has the rights that a run needs")
    client.close()
    if settings.vector_cache_url != url:
        with findings.failing_here():
            _look_at_cache(settings, findings)
    ledger = wiring.build_ledger(settings)
    if ledger.controls.paused():
        findings.warn("enrichment is paused: `python -m enrich resume` lets it go on")
    look_at_deployment(settings, ledger, findings)
    workers = Workers()
    try:
        workers.require()
    except NoWorker as error:
        findings.warn(str(error))
        return
    count, processes = workers.processes()
    told = f"{plural(count, 'worker')} with {plural(processes, 'process')} answer"
    findings.ok(told + ("s" if count == 1 else ""))
    if advice := settings.too_few_chunks_for(processes):
        findings.warn(advice)


def look_at_deployment(settings: Settings, ledger: Ledger, findings: Findings) -> None:
    workers = ledger.deployment.workers()
    for sentence in (told := disagreements(workers)):
        findings.bad(f"{sentence}: give all the same settings and restart those that differ")
    alive = [note for note in workers if note.alive]
    if alive and not told:
        names = Configuration.of(settings).differing(alive[0].configuration)
        if names:
            findings.bad(f"{', '.join(names)} of this command differ from {alive[0].name}'s")
    place = place_of(settings, socket.gethostname())
    patterns = settings.index_expression.split(",")
    try:
        for neighbour in ledger.deployment.neighbours(place, patterns):
            findings.warn(neighbour.sentence)
    except AccessRefused:
        findings.warn("other deployments on this Redis cannot be seen with the rights of its user")


def _look_at_cache(settings: Settings, findings: Findings) -> None:
    url = settings.vector_cache_url
    cache = connect(url)
    told = server.version(server.look(cache))
    findings.ok(f"vector cache: {told} at {without_password(url)}")
    cache.close()


def memory_lines(info: dict[str, Any], settings: Settings) -> Iterator[tuple[str, str]]:
    """What Redis' memory settings mean for the broker's keys, which have no time to live."""
    policy = str(info.get("maxmemory_policy", ""))
    most = int(info.get("maxmemory", 0))
    shared = settings.vector_cache_url == settings.redis_url.get_secret_value()
    cached = settings.enrich_cache_max_entries * settings.embedding_dimensions * 4
    if not policy:
        yield "warn", "its memory policy cannot be seen; it must be noeviction"
    elif policy.startswith("allkeys"):
        yield (
            "warn",
            f"maxmemory-policy is {policy}: once full, Redis would throw away queued work; set it "
            "to noeviction, and give CACHE_URL a Redis of its own if that shall evict",
        )
    elif most and shared and most < 2 * cached:
        yield (
            "warn",
            f"maxmemory is {most // 2**20:,} MB and the vector cache may take "
            f"{cached // 2**20:,} MB of it: raise it, lower ENRICH_CACHE_MAX_ENTRIES, or set "
            "CACHE_URL",
        )
    else:
        yield "ok", f"maxmemory-policy {policy}: the broker's keys cannot be evicted"
