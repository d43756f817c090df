"""`check`: everything a run needs, tried without changing a document.

One line for each thing looked at: it passes, warns, or says what to change. A server that does not
answer fails its own lines only.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.cli.screen import MAX_NAMED, few, plural
from enrich.cli.template import outlook_lines
from enrich.embedding.batching import HARMLESS_TEXT, embed_one
from enrich.embedding.client import Embedder
from enrich.embedding.endpoint import Endpoint, Purpose
from enrich.errors import AccessRefused, InputRefused, TextUnusable
from enrich.ledger import Ledger, server
from enrich.ledger.deployment import Configuration, disagreements, place_of
from enrich.log_store import LogStore, Readiness, RequestRefused, text_probe, write_probe
from enrich.log_store.cluster import settings_of
from enrich.log_store.coverage import WHOLE
from enrich.log_store.refusals import RightMissing, role_advice
from enrich.redis_client import connect
from enrich.schema import AUTO
from enrich.settings import (
    Settings,
    is_open_to_others,
    rewrite_of,
    unknown_names,
    without_password,
)
from enrich.text.extract import text_of
from enrich.worker.last_resort import reason_of
from enrich.worker.remote import NoWorker, Workers

SAMPLES = 3

#: Embedded where no log is pending.
PHRASES = (
    "connection refused by upstream",
    "java.lang.OutOfMemoryError: Java heap space",
    "disk is full, cannot write checkpoint",
)

#: Healthy indices named one by one; the others are counted.
MAX_HEALTHY = 10


class Check:
    """Looks and tells; remembers the worst it saw."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        #: 0; 1 when something has to be changed; 3 when a server is in the way.
        self.status = 0
        self._to_change: list[str] = []
        self._warned = 0
        #: Logs that a run would take, and USD it would cost at most; None if unknown.
        self.pending: int | None = None
        #: What that number leaves out.
        self.gaps = WHOLE
        self.cost: float | None = None
        self._indices: list[str] = []
        self._ready = Readiness(skipped={}, update_only=[], lacking={})

    def all(self) -> None:
        self._look_at_settings()
        for title, look in (
            ("Redis and workers", self._look_at_redis),
            ("OpenSearch", self._look_at_opensearch),
            ("Embeddings API", self._look_at_embeddings),
            ("Writing", self._look_at_writing),
        ):
            screen.heading(self._console, title)
            with self._failing_here():
                look()
        self._console.print()
        if self._to_change:
            count = len(self._to_change)
            what = f"{count} thing{'s' if count > 1 else ''} to change, see ✗ above"
            self._say("bad", f"Not ready: {what}: {self._to_change[0]}")
        else:
            warned = f"; {plural(self._warned, 'warning')}, see ! above" if self._warned else ""
            self._say("ok", f"Ready{warned}: a run would work")

    @property
    def pending_told(self) -> str:
        """The logs that a run would take, as the number may be said."""
        return self.gaps.at_least(f"{self.pending or 0:,}")

    # -- how lines come out

    def _ok(self, text: str) -> None:
        screen.line(self._console, "ok", text)

    def _say(self, mark: str, text: str) -> None:
        screen.line(self._console, mark, text)

    def _warn(self, text: str) -> None:
        self._warned += 1
        screen.line(self._console, "warn", text)

    def _bad(self, text: str, status: int = 1) -> None:
        self.status = max(self.status, status)
        self._to_change.append(text)
        screen.line(self._console, "bad", text)

    @contextmanager
    def _failing_here(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whatever one thing meets, the others are looked at; what nobody foresaw says so.
            self._bad(reason_of(error), 3)

    # -- what is looked at

    def _look_at_settings(self) -> None:
        settings = self._settings
        screen.heading(self._console, "Settings")
        fields = type(settings).model_fields
        changed = {name for name, value in settings if value != fields[name].default}
        self._ok(f"valid; {len(changed)} are set, {len(fields) - len(changed)} have their defaults")
        for name, shown in settings.redacted().items():
            if name.lower() in changed:
                self._console.print(f"     {screen.clean(name)}={screen.clean(shown)}")
        for sentence in unknown_names():
            self._warn(f"{sentence} (in the environment)")
        if is_open_to_others(".env"):
            self._warn(".env can be read by every user of this host: chmod 600 .env")
        if not settings.price_per_million_tokens:
            self._warn(
                f"the price of {settings.embedding_model} is not known, so cost shows as $0: set "
                "ENRICH_PRICE_PER_MILLION_TOKENS"
            )
        elif not settings.enrich_max_cost_per_day:
            self._warn(
                "no limit of cost a day is set: who writes logs decides what is paid, at full "
                "speed about $2 a second; set ENRICH_MAX_COST_PER_DAY (in USD)"
            )
        if settings.opensearch_nodes[0].secured and not settings.opensearch_verify_certs:
            self._warn("OPENSEARCH_VERIFY_CERTS is false: anybody in between can read the logs")

    def _look_at_redis(self) -> None:
        settings = self._settings
        url = settings.redis_url.get_secret_value()
        client = connect(url)
        info = server.look(client)
        self._ok(f"{server.version(info)} at {without_password(url)}")
        if info:
            for mark, text in memory_lines(info, settings):
                (self._ok if mark == "ok" else self._warn)(text)
        else:
            self._warn(
                "its version and memory policy cannot be seen (add +info to the ACL of its user): "
                "it must be Redis 6.2 or newer or Valkey, with maxmemory-policy noeviction"
            )
        server.try_rights(client, settings.enrich_redis_prefix)
        self._ok("its user has the rights that a run needs")
        client.close()
        if settings.vector_cache_url != url:
            with self._failing_here():
                self._look_at_cache()
        ledger = wiring.build_ledger(settings)
        if ledger.controls.paused():
            self._warn("enrichment is paused: `python -m enrich resume` lets it go on")
        self._look_at_deployment(ledger)
        workers = Workers()
        try:
            workers.require()
        except NoWorker as error:
            self._warn(str(error))
            return
        count, processes = workers.processes()
        told = f"{plural(count, 'worker')} with {plural(processes, 'process')} answer"
        self._ok(told + ("s" if count == 1 else ""))
        if advice := settings.too_few_chunks_for(processes):
            self._warn(advice)

    def _look_at_deployment(self, ledger: Ledger) -> None:
        settings, workers = self._settings, ledger.deployment.workers()
        for sentence in (told := disagreements(workers)):
            self._bad(f"{sentence}: give all the same settings and restart those that differ")
        alive = [note for note in workers if note.alive]
        if alive and not told:
            names = Configuration.of(settings).differing(alive[0].configuration)
            if names:
                self._bad(f"{', '.join(names)} of this command differ from {alive[0].name}'s")
        place = place_of(settings, socket.gethostname())
        patterns = settings.index_expression.split(",")
        try:
            for neighbour in ledger.deployment.neighbours(place, patterns):
                self._warn(neighbour.sentence)
        except AccessRefused:
            self._warn("other deployments on this Redis cannot be seen with the rights of its user")

    def _look_at_cache(self) -> None:
        url = self._settings.vector_cache_url
        cache = connect(url)
        told = server.version(server.look(cache))
        self._ok(f"vector cache: {told} at {without_password(url)}")
        cache.close()

    def _look_at_opensearch(self) -> None:
        settings = self._settings
        store = wiring.build_store(settings)
        user = settings.opensearch_login[0]
        who = f" as {user}" if user else ""
        if settings.opensearch_auth == "aws":
            who = f", signed for {settings.opensearch_aws_service}"
        self._look_at_nodes(store)
        version = store.version()
        self._ok(f"{version} at {store.connection.url}{who}")
        if version.objection:
            self._bad(version.objection, 3)
            return
        if not version.number:
            with self._or_unseen("its version"), suppress(RequestRefused):
                store.connection.request("GET", "/")
        if version.untested:
            self._warn(f"{version} is older than what enrich is tested on: upgrade it when you can")
        self._look_at_cluster(store)
        self._indices = store.stats.names()
        with self._or_unseen("whether there are data streams"):
            if streams := store.stats.streams_left_out(self._indices):
                self._warn(
                    f"data streams are left out: {', '.join(streams)}; the names of their indices "
                    f"begin with a dot: to take them in, add .ds-{streams[0]}-* and the like to "
                    "ENRICH_INDEX_PATTERN"
                )
        with self._or_unseen("whether indices are closed"):
            if closed := store.stats.closed(None):
                self._say_closed(closed)
        red: list[str] = []
        with self._or_unseen("which indices are red"):
            red = store.backlog.red_indices()
        if not self._indices and not red:
            self._warn(
                f"no index matches {settings.index_expression}: nothing will be found until one "
                "is there; see ENRICH_INDEX_PATTERN"
            )
            self.pending = 0
            return
        self._look_at_indices(store)

    def _look_at_nodes(self, store: LogStore) -> None:
        if len(self._settings.opensearch_nodes) == 1:
            return
        nodes = store.connection.nodes()
        for url, trouble in nodes:
            if not trouble:
                self._ok(f"node {url} answers")
            else:
                self._warn(f"node {url} is left out until it answers: {trouble}")

    def _look_at_cluster(self, store: LogStore) -> None:
        with self._or_unseen("whether the k-NN plugin is installed"):
            plugins = store.connection.ask(
                list[dict[str, Any]], "GET", "/_cat/plugins", params={"format": "json"}
            )
            # A distribution calls it opensearch-knn, a node built from parts by its class.
            if any("knn" in str(plugin.get("component", "")).lower() for plugin in plugins):
                self._ok("the k-NN plugin is installed")
            else:
                self._bad("the k-NN plugin is not installed: vectors need opensearch-knn")
        with self._or_unseen("action.auto_create_index"):
            merged = settings_of(store.connection)
            if str(merged.get("action.auto_create_index", "true")).lower() != "false":
                self._warn(
                    "action.auto_create_index is on: a late write to an index that was just "
                    "deleted recreates it; set it to false, or give OPENSEARCH_USER no right to "
                    "create indices (deploy/opensearch-role.json)"
                )
        with self._or_unseen("whether a disk is full"):
            if blocker := store.preflight.seen_nodes().blocker:
                self._bad(blocker)

    @contextmanager
    def _or_unseen(self, what: str) -> Iterator[None]:
        # Rights that a run does not need: without them a question stays open, nothing is wrong.
        try:
            yield
        except RightMissing as error:
            lacking = f", which lack {', '.join(error.rights)}" if error.rights else ""
            self._warn(
                f"{what} cannot be seen with the rights of OPENSEARCH_USER{lacking}: "
                f"{role_advice(error.rights)}"
            )

    def _look_at_indices(self, store: LogStore) -> None:
        backlog = store.backlog.count()
        counted = store.stats.counts()
        counts = counted.by_index
        ready = store.preflight.inspect(self._indices)
        fit = [name for name in backlog.counts if name not in ready.skipped]
        refused = store.wholeness.survey(fit, ready, backlog.unsorted)
        self._ready = replace(ready, skipped=ready.skipped | refused)
        gaps = counted.gaps
        reasons = {**gaps.indices, **self._ready.skipped, **backlog.unreadable}
        matching = plural(len({*self._indices, *reasons}), "index")
        self._ok(f"{matching} match {self._settings.index_expression}")
        healthy: list[str] = []
        undated: list[str] = []
        unfit: dict[tuple[str, bool, bool], list[str]] = {}
        for name in sorted({*self._indices, *reasons}):
            of_index = counts.get(name, {})
            pending, errors = of_index.get("without_vector", 0), sum(of_index.values())
            told = f"{name}: {errors:,} ERROR logs, {pending:,} without a vector"
            if name in reasons:
                # One without a backlog is not looked at by a run, so nothing fails yet.
                wrong = bool(pending) or name in backlog.unreadable or name in gaps.indices
                unfit.setdefault((reasons[name], wrong, name in refused), []).append(name)
                continue
            if name in self._ready.lacking:
                fields = ", ".join(self._ready.lacking[name])
                told += f"; the first run will add to its mapping: {fields}"
            if name in self._ready.update_only:
                told += "; has a final pipeline, so it is written by update, at half the speed"
            if name in backlog.unsorted:
                undated.append(told)
            else:
                healthy.append(told)
        for (reason, wrong, tried), names in unfit.items():
            for name in named(names):
                if wrong:
                    self._bad(f"{name}: {reason}", 3 if tried else 1)
                else:
                    self._warn(f"{name}: {reason}")
        time = " or ".join(self._settings.log_schema.timestamp_fields)
        for told in undated[:MAX_NAMED]:
            self._warn(f"{told}; {time} is not a date, so its newest logs cannot go first")
        if len(undated) > MAX_NAMED:
            self._warn(
                f"{len(undated) - MAX_NAMED} more whose {time} is not a date: their newest logs "
                "cannot go first"
            )
        for told in healthy[:MAX_HEALTHY]:
            self._ok(told)
        if len(healthy) > MAX_HEALTHY:
            self._ok(f"{len(healthy) - MAX_HEALTHY} more without a fault")
        self.pending = sum(
            count for name, count in backlog.counts.items() if name not in self._ready.skipped
        )
        failed = sum(of_index["failed"] for of_index in counts.values())
        marked = (
            f"; {gaps.at_least(f'{failed:,}')} are marked failed, see `python -m enrich failures`"
            if failed
            else ""
        )
        self.gaps = gaps
        told = f"{self.pending_told} ERROR logs can be given a vector{marked}"
        if gaps.whole:
            self._ok(told)
        elif gaps.unnamed or gaps.clusters:
            self._bad(f"{told}; {gaps.sentence()}")
        else:
            # Each of these indices has its ✗ above.
            self._warn(f"{told}; {gaps.sentence()}")
        self._look_at_shapes(store)
        for mark, sentence in outlook_lines(store, self._indices):
            (self._ok if mark == "ok" else self._warn)(sentence)
        if others := sum(counted.of_other_models.values()):
            told_of = store.stats.other_models(list(counted.of_other_models))
            models = ", ".join(told_of.value) + ("" if told_of.gaps.whole else " and maybe others")
            self._warn(
                f"{gaps.at_least(plural(others, 'log'))} have vectors of other models ({models}): "
                "search does not find them; remove log_vector from these logs to have them made "
                "anew, or set EMBEDDING_MODEL and EMBEDDING_DIMENSIONS back"
            )
        takes = [name for name in fit if name not in refused]
        seen = text_probe.texts_of(
            store.finder, takes, self._ready, backlog.unsorted, rewrite_of(self._settings)
        )
        newest = "" if seen.looked_at >= self.pending else f" of the newest {seen.looked_at:,}"
        if seen.unusable:
            self._warn(
                f"{seen.unusable:,}{newest} have no usable text in "
                f"{self._settings.log_schema.texts_told}, so that a run marks them "
                "failed: `python -m enrich failures` will name them"
            )
        if 10 * (saved := seen.distinct - seen.normalised) >= max(10, seen.distinct):
            self._ok(
                f"of {plural(seen.distinct, 'distinct text')}{newest} {seen.normalised:,} are left "
                f"where numbers, ids, times, paths and addresses count as alike: "
                f"ENRICH_NORMALIZE=all would save {saved / seen.distinct:.0%} of what is sent "
                "(docs/text.md)"
            )

    def _look_at_shapes(self, store: LogStore) -> None:
        """Logs that ENRICH_SCHEMA does not see."""
        seen, settings = store.recognition.look(), self._settings
        own = settings.enrich_level_field or settings.enrich_text_fields
        alone = not self.pending and len(seen.others) == 1 and not own
        for one in seen.others:
            schema = one.shape.name if alone else AUTO
            like = "looks" if len(one.indices) == 1 else "look"
            self._warn(
                f"{plural(len(one.indices), 'index')} {like} like {one.shape.title} "
                f"({one.fields}): ENRICH_SCHEMA={schema} finds {plural(one.logs, 'log')}"
                f"{'' if alone else ' more'} ({few(one.indices)})"
            )
        if names := seen.unknown:
            likely = " or ".join(seen.like_levels[:MAX_NAMED])
            hint = f" (perhaps {likely})" if likely else ""
            self._warn(
                f"{plural(len(names), 'index')} {'has' if len(names) == 1 else 'have'} no field "
                f"that is known for a level, so that nothing is found in {few(names)}: set "
                f"ENRICH_LEVEL_FIELD{hint} and ENRICH_TEXT_FIELDS, or leave out what has no logs "
                "by ENRICH_EXCLUDE_INDICES"
            )
        if logs := seen.spelt_otherwise:
            levels = ",".join((*settings.enrich_levels, *seen.spellings))
            self._warn(
                f"{plural(logs, 'log')} more {'has its' if logs == 1 else 'have their'} level "
                f"spelt {' or '.join(seen.spellings)}: ENRICH_LEVELS={levels} finds them"
            )

    def _say_closed(self, closed: Sequence[str]) -> None:
        self._warn(
            f"{plural(len(closed), 'index')} that would match "
            f"{'is' if len(closed) == 1 else 'are'} closed, and left out of every number here: "
            f"{few(closed)}"
        )

    def _look_at_embeddings(self) -> None:
        settings = self._settings
        embedder = wiring.build_embedder(settings)
        tokens = 0
        for text in endpoint_lines(settings):
            self._ok(text)
        texts, what = self._samples()
        for text in texts:
            began = time.perf_counter()
            whole = len(text.encode())
            try:
                answer, sent = embed_one(embedder, text)
            except InputRefused as error:
                self._look_at_harmless(embedder, error)
                continue
            took = time.perf_counter() - began
            (vector,) = answer.vectors
            if vector is None:
                self._bad(f"{settings.openai_base_url} sent numbers that are no vector", 3)
                continue
            tokens += answer.tokens
            self._ok(
                f"{what} of {len(text):,} characters: {settings.embedding_model}, "
                f"{vector.size} dimensions, {took * 1000:,.0f} ms, {answer.tokens:,} tokens"
                + (f"; cut to {sent:,} bytes, as the model takes" if sent < whole else "")
            )
        if tokens and self.pending and settings.price_per_million_tokens:
            each = tokens / len(texts) * settings.price_per_million_tokens / 1e6
            self.cost = each * self.pending
            self._ok(
                f"at this size {self.pending_told} logs cost about {screen.dollars(self.cost)}, "
                "less where texts repeat"
            )
        if Endpoint.of(settings, Purpose.QUERY).form != Endpoint.of(settings).form:
            self._look_at_query()

    def _look_at_query(self) -> None:
        """Where words that are searched go out in another way than logs: whether that is taken."""
        embedder = wiring.build_query_embedder(self._settings)
        try:
            answer, _ = embed_one(embedder, PHRASES[0])
        except InputRefused as error:
            self._bad(f"{error}, of a query: check ENRICH_QUERY_PREFIX and ENRICH_QUERY_EXTRA_BODY")
            return
        (vector,) = answer.vectors
        if vector is None:
            self._bad("a query was answered with numbers that are no vector", 3)
        else:
            self._ok(f"a query, sent as `search` sends it: {vector.size} dimensions")

    def _look_at_harmless(self, embedder: Embedder, refused: InputRefused) -> None:
        """Whether the endpoint refuses everything, or a text of its own."""
        try:
            embedder.embed([HARMLESS_TEXT])
        except InputRefused:
            self._bad(f"{refused}: check EMBEDDING_MODEL and OPENAI_BASE_URL")
        else:
            self._warn(
                f"{refused}, and takes a harmless one: a log refused like this is marked failed"
            )

    def _samples(self) -> tuple[Sequence[str], str]:
        if not self.pending:
            return PHRASES, "a phrase"
        texts = []
        mask = rewrite_of(self._settings)
        for message in wiring.build_store(self._settings).stats.sample(SAMPLES):
            try:
                texts.append(text_of({"message": message}, mask))
            except TextUnusable:
                continue
        return (texts, "a log") if texts else (PHRASES, "a phrase")

    def _look_at_writing(self) -> None:
        store = wiring.build_store(self._settings)
        takes = [name for name in self._indices if name not in self._ready.skipped]
        told = write_probe.try_writes(store, takes)
        refused = {name: reason for name, reason in told.items() if reason}
        for name, reason in refused.items():
            self._bad(f"{name}: {reason}", 3)
        self._ready = replace(self._ready, skipped=self._ready.skipped | refused)
        if len(told) > len(refused):
            self._ok(
                f"an update would be allowed in {plural(len(told) - len(refused), 'index')} "
                "(tried under a version that cannot be: nothing was changed)"
            )
        if not told:
            self._warn("whether an update is allowed is not known: there is no document to try it")
        with self._or_unseen("what a run has written, at its end,"), suppress(RequestRefused):
            write_probe.try_refresh(store, [name for name, reason in told.items() if not reason])
        incomplete = sorted(self._ready.lacking)
        reason = write_probe.try_mapping(store, incomplete)
        if reason:
            self._bad(reason, 3)
        elif incomplete:
            self._ok("missing fields may be added to mappings")


def endpoint_lines(settings: Settings) -> Iterator[str]:
    """How the endpoint is asked: the form of its address, and what goes with texts."""
    yield Endpoint.of(settings).told()
    if proxy := settings.openai_proxy.get_secret_value():
        yield "without a proxy" if proxy == "none" else f"through {without_password(proxy)}"
    if headers := settings.redacted()["OPENAI_EXTRA_HEADERS"]:
        yield f"with headers {headers}"
    for purpose, what in ((Purpose.DOCUMENT, "logs"), (Purpose.QUERY, "queries")):
        endpoint = Endpoint.of(settings, purpose)
        told = []
        if endpoint.prefix:
            told.append(f"with {json.dumps(endpoint.prefix, ensure_ascii=False)} before each")
        if endpoint.extra:
            told.append(f"with {json.dumps(endpoint.extra, ensure_ascii=False)}")
        if told:
            yield f"{what} are sent {' and '.join(told)}"


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


def named(indices: Sequence[str]) -> list[str]:
    """Indices of one fault, each to be told alone, or in one line where they are many. Pure."""
    if len(indices) <= MAX_NAMED:
        return list(indices)
    first = ", ".join(indices[:MAX_NAMED])
    return [f"{len(indices):,} indices ({first} and {len(indices) - MAX_NAMED:,} more)"]
