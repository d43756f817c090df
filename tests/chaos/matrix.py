"""The matrix of faults as data: each row a name, a group and a function that does the harm.

A row's function starts the drain, does its harm while the drain is under way, heals it, and
declares to the `Truth` what it did to the documents and how many paid answers it cut off. What
must hold afterwards is the same for all rows, and the checker's.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from enrich.embedding.batching import CONFIRMATIONS
from tests.chaos.world import BANK, BATCH, INTERVAL, PROCESSES, SHOP, World
from tests.messages import again, arguments, envelope

#: Inputs in requests that are open at one moment: what a crash of all workers can cut off.
IN_FLIGHT = BATCH * PROCESSES


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault."""

    name: str
    group: str
    #: One line for the table.
    told: str
    harm: Callable[[Any], None]
    #: What it acts on.
    world: type[World] = World


ROWS: dict[str, Row] = {}


def row(group: str, told: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Make a row of a function; its name is the row's."""

    def add(harm: Callable[[World], None]) -> Callable[[World], None]:
        name = harm.__name__.replace("_", "-")
        ROWS[name] = Row(name=name, group=group, told=told, harm=harm)
        return harm

    return add


@row("none", "nothing: the measure for the others")
def calm(w: World) -> None:
    w.start()
    w.under_way()


# -- workers and messages


@row("workers", "kill -9 of the worker, all processes, in work; another starts")
def worker_killed(w: World) -> None:
    w.start()
    w.under_way()
    w.workers[0].kill()
    w.truth.cut_inputs += IN_FLIGHT
    w.worker()


@row("workers", "kill -9 of one prefork child in work")
def child_killed(w: World) -> None:
    w.start()
    w.under_way()
    os.kill(w.random.choice(children(w.workers[0].pid)), signal.SIGKILL)
    w.truth.cut_inputs += BATCH


@row("workers", "SIGTERM in work, then a new worker: a deploy")
def worker_terminated(w: World) -> None:
    w.start()
    w.under_way()
    os.kill(w.workers[0].pid, signal.SIGTERM)
    w.until(lambda: not w.workers[0].running, "the worker has ended")
    w.worker()


@row("workers", "no worker for two intervals")
def workers_away(w: World) -> None:
    w.start()
    w.under_way()
    w.workers[0].kill()
    w.truth.cut_inputs += IN_FLIGHT
    time.sleep(2 * INTERVAL)
    w.worker()


@row("workers", "two beats and two workers")
def two_beats(w: World) -> None:
    w.start()
    w.beat()
    w.worker()
    w.under_way()


@row("workers", "beat killed and started anew in the middle of a run")
def beat_restarted(w: World) -> None:
    w.start()
    w.under_way()
    w.beats[0].kill()
    w.beat()


@row("workers", "the time limits strike: the API slower than the hard limit, once")
def time_limit_hit(w: World) -> None:
    w.env["OPENAI_TIMEOUT_SECONDS"] = "30"
    w.api.faults({"kind": "hang", "after": 3, "times": 2, "seconds": 6})
    w.truth.cut_inputs += 2 * BATCH
    w.start()
    w.under_way()


@row("messages", "every waiting message delivered twice")
def message_twice(w: World) -> None:
    w.start()
    w.under_way()
    waiting = w.redis.lrange(w.queue(), 0, -1)
    w.met(bool(waiting), "no message waited")
    for message in waiting:
        w.redis.lpush(w.queue(), again(message))


@row("messages", "one chunk's message lost, as between the broker's pop and its entry")
def message_lost(w: World) -> None:
    w.start()
    w.under_way()
    w.until(lambda: bool(w.redis.lpop(w.queue())), "a message was waiting")


@row("messages", "all waiting messages lost, the next page's too")
def messages_all_lost(w: World) -> None:
    w.start()
    w.under_way()
    lost = w.redis.delete(w.queue(), w.queue("enrich.scan"))
    w.met(bool(lost), "no message waited")


@row("messages", "hostile messages: unknown task, wrong types, pickle, huge, from an older version")
def hostile_messages(w: World) -> None:
    w.start()
    w.under_way()
    for queue in ("enrich.embed", "enrich.scan"):

        def put(task: str, *given: Any, queue: str = queue, **changes: Any) -> None:
            message = envelope(arguments(*given), task=task, queue=queue, **changes)
            w.redis.lpush(w.queue(queue), message)

        for given in ([], ["text"], [{"id": 1}], [None], [{"id": "x:1:1", "references": []}]):
            put("enrich.embed_and_update", *given)
        put("os.system", "true")
        put("enrich.scan_page", "x" * 2_000_000, 1)
        put("enrich.scan_page")
        put("enrich.finish_run", {"a": 1})
        put("enrich.scan_page", content_type="application/x-python-serialize")


@row("messages", "messages that are no messages: bytes, cut JSON, JSON of another shape")
def garbage_in_the_queue(w: World) -> None:
    w.start()
    w.under_way()
    for garbage in (b"\x80\x04garbage", b'{"body": "', b"[]", b"{}", b'{"body": 1}', b"null"):
        w.redis.lpush(w.queue(), garbage)


# -- Redis


@row("redis", "FLUSHALL in the middle of a run")
def redis_flushed(w: World) -> None:
    w.start()
    w.under_way()
    w.redis.flushall()
    redis_lost(w)


@row("redis", "restarted without its data")
def redis_restarted_empty(w: World) -> None:
    w.start()
    w.under_way()
    w.stack.redis.kill()
    for entry in (w.stack.folder / "data" / "redis").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    w.stack.redis.start()
    redis_lost(w)


@row("redis", "kill -9 and started anew with its data")
def redis_killed(w: World) -> None:
    w.start()
    w.under_way()
    w.stack.redis.kill()
    time.sleep(2)
    w.stack.redis.start()
    # Results under way while the cache cannot be written.
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "connections cut for 5 s")
def redis_cut(w: World) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("cut", 5)
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "hangs for 5 s")
def redis_hangs(w: World) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("hang", 5)
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "maxmemory reached for 5 s")
def redis_full(w: World) -> None:
    w.start()
    w.under_way()
    w.redis.config_set("maxmemory", "1mb")
    time.sleep(5)
    w.redis.config_set("maxmemory", "0")
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "a read-only replica for 5 s")
def redis_read_only(w: World) -> None:
    w.start()
    w.under_way()
    # Of a primary that is not there: it keeps its data and refuses to write.
    w.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    time.sleep(5)
    w.redis.execute_command("REPLICAOF", "NO", "ONE")
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "every cache entry truncated, or of another length")
def cache_truncated(w: World) -> None:
    w.start()
    w.under_way()
    struck = 0
    for key in w.redis.scan_iter(w.prefix + "vector:*"):
        if key.endswith((b":claims", b":uses")):
            continue
        value = w.redis.get(key) or b""
        w.redis.set(key, value[:100] if struck % 2 else value + b"\0" * 4, ex=60)
        struck += 1
    w.met(struck > 0 and bool(w.checker.owed(w.truth)), "nobody reads the cache any more")
    # Their texts may have to be bought again, for the other project.
    w.truth.cut_inputs += struck


# -- OpenSearch


@row("opensearch", "kill -9 and started anew")
def opensearch_killed(w: World) -> None:
    w.start()
    w.under_way()
    w.stack.opensearch.kill()
    w.stack.opensearch.start()


@row("opensearch", "connections cut for 4 s")
def opensearch_cut(w: World) -> None:
    w.start()
    w.under_way()
    w.opensearch_proxy.set_for("cut", 4)


@row("opensearch", "hangs for 4 s")
def opensearch_hangs(w: World) -> None:
    w.start()
    w.under_way()
    w.opensearch_proxy.set_for("hang", 4)


@row("opensearch", "slow answers")
def opensearch_slow(w: World) -> None:
    w.opensearch_proxy.delay = 0.2
    w.start()
    w.under_way()


@row("opensearch", "an index deleted in the middle; it must not come back")
def index_deleted(w: World) -> None:
    w.start()
    w.under_way()
    w.search("DELETE", f"/{BANK}")
    w.truth.gone |= {key for key in w.truth.sources if key[0] == BANK}


@row("opensearch", "an index closed and opened")
def index_closed(w: World) -> None:
    w.start()
    w.under_way()
    w.search("POST", f"/{SHOP}/_close")
    time.sleep(4)
    w.search("POST", f"/{SHOP}/_open?wait_for_active_shards=1")


@row("opensearch", "an index made read-only and back")
def index_read_only(w: World) -> None:
    w.start()
    w.under_way()
    w.search("PUT", f"/{SHOP}/_settings", {"index.blocks.write": True})
    time.sleep(4)
    w.search("PUT", f"/{SHOP}/_settings", {"index.blocks.write": None})


@row("opensearch", "the disk's flood stage: read-only but deletes, and back")
def flood_stage(w: World) -> None:
    w.start()
    w.under_way()
    block = "index.blocks.read_only_allow_delete"
    w.search("PUT", f"/{SHOP},{BANK}/_settings", {block: True})
    time.sleep(4)
    w.search("PUT", f"/{SHOP},{BANK}/_settings", {block: None})


@row("opensearch", "logs changed and deleted between read and write")
def logs_changed(w: World) -> None:
    w.start()
    w.under_way()
    for nth, (index, id) in enumerate(w.some(40)):
        if nth % 2:
            w.search("DELETE", f"/{index}/_doc/{id}")
            w.truth.gone.add((index, id))
        else:
            source = {**w.truth.sources[index, id], "message": f"another text, of log {nth}"}
            w.search("PUT", f"/{index}/_doc/{id}", source)
            w.truth.owe((index, id), source)
            w.truth.replaced.add((index, id))


@row("opensearch", "the sibling writes its vectors to the same logs at the same moment")
def sibling_writes(w: World) -> None:
    w.start()
    w.under_way(BATCH)
    for index, id in w.some(60):
        vector = [w.random.uniform(-1, 1) for _ in range(1536)]
        body = {"doc": {"log_vector": vector, "ai_enrichment_method": "realtime"}}
        w.search("POST", f"/{index}/_update/{id}?retry_on_conflict=5", body)
        w.truth.theirs[index, id] = vector


@row("opensearch", "mapping changed to strict in the middle")
def mapping_strict(w: World) -> None:
    w.start()
    w.under_way()
    w.search("PUT", f"/{SHOP}/_mapping", {"dynamic": "strict"})


# -- the embeddings API


def api(
    name: str, told: str, *faults: dict[str, Any], paid: int = 0, env: dict[str, str] | None = None
) -> None:
    """A row whose harm is only in what the API answers, from the fourth request on.

    Args:
        paid: how many of the struck answers were computed, and so paid, all the same.
    """

    def harm(w: World) -> None:
        w.env |= env or {}
        w.api.faults(*({"after": 3, **fault} for fault in faults))
        # And after each request that was struck, perhaps a harmless text to see what else works.
        w.truth.cut_inputs += paid * BATCH + sum(fault.get("times", 1) for fault in faults)
        w.start()
        w.under_way()

    harm.__name__ = f"api_{name}"
    row("api", told)(harm)


def _http_date(w: World) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    w.api.faults(
        {
            "kind": "status",
            "status": 429,
            "after": 3,
            "times": 4,
            "headers": {"retry-after": when},
        }
    )
    w.start()
    w.under_way()


LIMITED = {"kind": "status", "status": 429, "times": 4}
HTML = {"kind": "html", "times": 3}

api("429_seconds", "429 with Retry-After: 2", {**LIMITED, "headers": {"retry-after": "2"}})
_http_date.__name__ = "api_429_date"
row("api", "429 with Retry-After as an HTTP date")(_http_date)
api("429_bare", "429 without Retry-After", {**LIMITED, "times": 2})
api("500_html", "500 and 503 with an HTML page", {**HTML, "status": 500}, {**HTML, "status": 503})
api("200_html", "200 with a page of a captive portal", HTML)
api("reset", "connection reset in the body", {"kind": "reset", "times": 3}, paid=3)
api("hang", "hangs until the time-out", {"kind": "hang", "times": 2, "seconds": 4}, paid=2)
api("too_few", "too few vectors", {"kind": "too_few", "times": 2}, paid=2)
api("too_many", "too many vectors", {"kind": "too_many", "times": 2}, paid=2)
api("duplicate_index", "an index twice", {"kind": "duplicate_index", "times": 2}, paid=2)
api("shuffled_index", "all answers shuffled", {"kind": "shuffled_index", "times": 0})
api("empty_data", "no data", {"kind": "empty_data", "times": 2}, paid=2)
api("cut_json", "JSON cut short", {"kind": "cut_json", "times": 2}, paid=2)
api("nan", "NaN in one vector of each answer", {"kind": "nan", "times": 3}, paid=3)
api("inf", "infinity in all vectors of two", {"kind": "inf", "times": 2, "all": True}, paid=2)
api("zeros", "all zeros", {"kind": "zeros", "times": 2, "all": True}, paid=2)
api("trickle", "a slow trickle", {"kind": "trickle", "times": 2, "seconds": 1.5}, paid=2)
api("wrong_dimension", "one answer of a wrong dimension", {"kind": "wrong_dimension"}, paid=1)
api("413", "413 for two requests", {"kind": "status", "status": 413, "times": 2})


@row("api", "401 in the middle; then the key is mended")
def api_401(w: World) -> None:
    w.start()
    w.under_way()
    w.api.set(api_key="sk-another")
    w.until(w.halted, "the run was halted")
    w.api.set(api_key=w.stack.environment()["OPENAI_API_KEY"])
    w.truth.cut_inputs += 2  # each run after a halt probes with one input


@row("api", "quota exhausted; then credit is added")
def api_quota(w: World) -> None:
    w.start()
    w.under_way()
    w.api.set(quota_exhausted=True)
    w.until(w.halted, "the run was halted")
    w.api.set(quota_exhausted=False)
    w.truth.cut_inputs += 2


@row("api", "one poison text among the others: 400 without saying which")
def api_poison(w: World) -> None:
    one_text(w, {"kind": "poison"})


# -- help for the rows


def one_text(w: World, fault: dict[str, Any], text: str = "host number 17.") -> None:
    """Strike every request with one text in it; its logs fail by themselves."""
    w.api.faults({**fault, "match": text, "times": 0})
    for key, source in w.truth.sources.items():
        if text in source["message"] and source["level"] == "ERROR" and "by" not in source:
            w.truth.failing[key] = "text_refused"
    # For each of its logs, a harmless text before the halves and one before the mark.
    w.truth.cut_inputs += 2 * len(w.truth.failing)
    if fault.get("status", 0) >= 500:
        # Marked by the next run alone, which takes the harmless text between its confirmations too.
        w.truth.cut_inputs += (2 + CONFIRMATIONS) * len(w.truth.failing)
    w.start()
    w.under_way()


def redis_lost(w: World) -> None:
    """Redis forgot the runs and the cache; what is in OpenSearch is served from there, but only
    within its project."""
    w.truth.redis_lost = True
    shop, bank = (
        {s["message"] for k, s in w.truth.sources.items() if k[0] == i} for i in (SHOP, BANK)
    )
    w.truth.cut_inputs += IN_FLIGHT + len(shop & bank)


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


# Rows in rooms of their own add themselves, when all that they use is there.
from tests.chaos import (  # noqa: E402
    rows_api,  # noqa: F401
    rows_deployment,  # noqa: F401
    rows_realtime,  # noqa: F401
    rows_scaling,  # noqa: F401
    rows_search,  # noqa: F401
    rows_unwritable,  # noqa: F401
    rows_versions,  # noqa: F401
    rows_workers,  # noqa: F401
)
