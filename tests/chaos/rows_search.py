"""Rows of the chaos matrix about what OpenSearch, or a proxy before it, answers and refuses.

Harm inside single requests is done by a proxy that knows HTTP; what a node really does by itself
(a shard gone, a mapping that refuses) is done to the real node.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from dev.http_proxy import Alter, Answered, Asked, Forward, HttpProxy, taking_at_most
from tests.chaos.matrix import redis_lost, row
from tests.chaos.world import PATIENCE, SHOP, Stuck, World

Key = tuple[str, str]
Spoil = Callable[[Asked, Forward], Answered]

#: The requests of one kind, by the last part of their path.
KINDS = {
    "search": frozenset({"_search", "_msearch"}),
    "mget": frozenset({"_mget"}),
    "bulk": frozenset({"_bulk"}),
}


class Strikes:
    """Alters the next `times` answers to requests of one kind, after letting some pass."""

    def __init__(self, kind: str, times: int, spoil: Spoil, after: int = 0) -> None:
        self._paths = KINDS[kind]
        self._spoil = spoil
        self._after = after
        self._left = times
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        return not self._left

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        return (self._spoil if self._due(asked) else _pass)(asked, forward)

    def _due(self, asked: Asked) -> bool:
        where, _, last = asked.path.partition("?")[0].rpartition("/")
        # A bulk to one index is a trial, which writes nothing.
        if last not in self._paths or (where and last == "_bulk"):
            return False
        with self._lock:
            if self._after:
                self._after -= 1
                return False
            due = self._left > 0
            self._left -= due
            return due


def behind(w: World, alter: Alter) -> None:
    """Start a drain whose workers reach OpenSearch through a proxy that alters answers."""
    proxy = w.until_judged(HttpProxy(w.stack.opensearch.url))
    proxy.alter = alter
    w.env["OPENSEARCH_PORT"] = str(proxy.port)
    w.start()


def struck(w: World, strikes: Strikes) -> None:
    """Start a drain behind the strikes; wait until all were."""
    behind(w, strikes)
    w.until(lambda: strikes.over, "all answers to be altered were", 60.0)


@contextmanager
def another_index(
    w: World, name: str, documents: list[dict[str, Any]], **body: Any
) -> Iterator[None]:
    """An index beside the usual two, with what it owes; deleted in the end."""
    w.search("DELETE", f"/{name}?ignore_unavailable=true", ok=False)
    w.search.create(name, **body)
    try:
        w.search.index(name, documents)
        for key, hit in w.checker.read((name,)).items():
            w.truth.owe(key, hit["_source"])
        yield
    finally:
        w.search("DELETE", f"/{name}?ignore_unavailable=true", ok=False)


def some_logs(word: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "level": "ERROR",
            "message": f"{word} number {n}",
            "timestamp": f"2026-12-01T10:00:{n % 60:02d}Z",
        }
        for n in range(count)
    ]


def _pass(asked: Asked, forward: Forward) -> Answered:
    return forward(asked)


# -- 429


def _refused_whole(asked: Asked, forward: Forward) -> Answered:
    error = {"type": "rejected_execution_exception", "reason": "rejected execution of bulk"}
    body = {"error": {"root_cause": [error], **error}, "status": 429}
    return Answered(status=429, body=json.dumps(body).encode())


def refusing_items(refused: Callable[[int, dict[str, Any]], bool]) -> Spoil:
    """Items of a bulk are refused for now and not written; the others are.

    Args:
        refused: takes an item's place and its action's fields.
    """

    def spoil(asked: Asked, forward: Forward) -> Answered:
        rows = asked.body.splitlines(keepends=True)
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        actions = [next(iter(json.loads(action).items())) for action, _ in pairs]
        barred = [refused(nth, fields) for nth, (_, fields) in enumerate(actions)]
        passed = b"".join(b"".join(pair) for pair, no in zip(pairs, barred, strict=True) if not no)
        written: Iterator[Any] = iter(())
        if passed:
            answered = forward(
                Asked(
                    method=asked.method,
                    path=asked.path,
                    content_type=asked.content_type,
                    body=passed,
                )
            )
            if answered.status != 200:
                return answered
            written = iter(json.loads(answered.body)["items"])
        error = {"type": "es_rejected_execution_exception", "reason": "rejected"}
        items = [
            {name: {"status": 429, "error": error}} if no else next(written)
            for (name, _), no in zip(actions, barred, strict=True)
        ]
        errors = any(barred) or any("error" in next(iter(item.values())) for item in items)
        return Answered(body=json.dumps({"errors": errors, "items": items}).encode())

    return spoil


@row("opensearch", "429 for whole bulk requests")
def bulk_429(w: World) -> None:
    struck(w, Strikes("bulk", 6, _refused_whole, after=2))


@row("opensearch", "413 for bulks beyond 60 kB, as a proxy may have it, to the end of the drain")
def bulk_413(w: World) -> None:
    refused: list[int] = []
    behind(w, taking_at_most(60_000, "/_bulk", refused))
    w.until(lambda: bool(refused), "a bulk was refused", 60.0)


@row("opensearch", "429 for every second item of some bulks, which is not written")
def bulk_items_429(w: World) -> None:
    struck(w, Strikes("bulk", 6, refusing_items(lambda nth, _: nth % 2 == 0), after=2))


# -- proxies that cut and replace


def _cut_json(asked: Asked, forward: Forward) -> Answered:
    answered = forward(asked)
    return Answered(body=answered.body[: len(answered.body) // 2])


def _hang_up(asked: Asked, forward: Forward) -> Answered:
    return Answered(body=forward(asked).body, hang_up=True)


def _sign_in(asked: Asked, forward: Forward) -> Answered:
    # After the server has done what it was asked for: the worst of both.
    forward(asked)
    return Answered(content_type="text/html", body=b"<html><h1>Please sign in</h1></html>")


def _bad_gateway(asked: Asked, forward: Forward) -> Answered:
    return Answered(status=502, content_type="text/html", body=b"<h1>Bad gateway</h1>")


SPOILT: dict[str, tuple[str, Spoil]] = {
    "cut": ("cut JSON with status 200", _cut_json),
    "hangup": ("the connection closed in the body", _hang_up),
    "html": ("200 with an HTML page, though it was done", _sign_in),
    "502": ("502 with an HTML page", _bad_gateway),
}


def _answers(kind: str, name: str) -> None:
    told, spoil = SPOILT[name]

    def harm(w: World) -> None:
        struck(w, Strikes(kind, 4, spoil, after=1))

    harm.__name__ = f"{kind}_{name}"
    row("opensearch", f"answers to {kind}: {told}")(harm)


for _kind in KINDS:
    for _name in SPOILT:
        _answers(_kind, _name)


# -- partial answers


def _in_part(answer: dict[str, Any]) -> dict[str, Any]:
    """A search's answer as if no shard with hits had answered, some in error and some in time."""
    total = answer["_shards"]["total"] + 1
    shards = {"total": total, "successful": total - 1, "skipped": 0, "failed": 1}
    changed = {**answer, "_shards": shards, "hits": {**answer["hits"], "hits": []}}
    if "aggregations" in answer:
        changed["aggregations"] = {
            name: {**value, "buckets": []} for name, value in answer["aggregations"].items()
        }
    return changed


def _partial(asked: Asked, forward: Forward) -> Answered:
    answer = json.loads(forward(asked).body)
    if "responses" in answer:
        changed = {**answer, "responses": [_in_part(each) for each in answer["responses"]]}
    else:
        changed = _in_part(answer)
    return Answered(body=json.dumps(changed).encode())


def _timed_out(asked: Asked, forward: Forward) -> Answered:
    answer = json.loads(_partial(asked, forward).body)
    for each in answer.get("responses", [answer]):
        each["timed_out"] = True
        each["_shards"] = {"total": 2, "successful": 2, "skipped": 0, "failed": 0}
    return Answered(body=json.dumps(answer).encode())


@row("opensearch", "searches whose shards answer only in part")
def search_partial(w: World) -> None:
    struck(w, Strikes("search", 6, _partial))
    w.met(bool(w.checker.owed(w.truth)), "nothing was owed any more")
    nothing_said_to_be_empty(w)


@row("opensearch", "searches that ran out of time with a part of their hits")
def search_timed_out(w: World) -> None:
    struck(w, Strikes("search", 6, _timed_out))
    w.met(bool(w.checker.owed(w.truth)), "nothing was owed any more")
    nothing_said_to_be_empty(w)


@row("opensearch", "one of an index's two shards lost in the middle; found again later")
def shard_lost(w: World) -> None:
    name = "wide_web_2026_11"
    settings = {"index.knn": True, "number_of_shards": 2, "number_of_replicas": 0}
    mappings = {"properties": {"level": {"type": "keyword"}, "timestamp": {"type": "date"}}}
    w.until_judged(
        another_index(w, name, some_logs("wide", 120), settings=settings, mappings=mappings)
    )
    w.start()
    w.under_way()
    uuid = w.search("GET", f"/_cat/indices/{name}?format=json&h=uuid")[0]["uuid"]
    node = w.search("GET", "/_cat/nodes?format=json&h=name")[0]["name"]
    files = next(
        path / "1" for path in (w.stack.folder / "data").rglob(uuid) if (path / "1").is_dir()
    )
    away = Path(f"{files}-away")

    def reroute(command: str, **more: Any) -> None:
        where = {"index": name, "shard": 1, "node": node, **more}
        w.search("POST", "/_cluster/reroute", {"commands": [{command: where}]})

    w.search("POST", f"/{name}/_flush?force=true")
    files.rename(away)
    try:
        reroute("cancel", allow_primary=True)
        before = set(runs(w))
        # The run that met the loss, and one that began with it: each may back off for a minute.
        w.until(lambda: len(set(runs(w)) - before) >= 2, "two more runs were begun", 2 * PATIENCE)
        nothing_said_to_be_empty(w)
    finally:
        away.rename(files)
        reroute("allocate_stale_primary", accept_data_loss=True)
        w.search("GET", f"/_cluster/health/{name}?wait_for_status=yellow&timeout=20s")


def runs(w: World) -> list[str]:
    return [run.decode() for run in w.redis.lrange(w.prefix + "runs", 0, -1)]


def nothing_said_to_be_empty(w: World) -> None:
    """While logs are owed, no run may end well with nothing found and nothing skipped."""
    for run in runs(w):
        key = f"{w.prefix}run:{run}"
        state, found = w.redis.hmget(key, "state", "found")
        if state == b"finished" and not int(found or 0) and not w.redis.hlen(f"{key}:skipped"):
            raise Stuck(f"run {run} took a part of the answer for an empty backlog")


# -- months and marks


@row("opensearch", "a new month's index appears, with logs, in the middle of a run")
def month_rolled(w: World) -> None:
    w.start()
    w.under_way()
    w.met(bool(w.active_run()), "no run was active any more")
    logs = some_logs("december", 30) + [{**each, "level": "INFO"} for each in some_logs("x", 10)]
    w.until_judged(another_index(w, SHOP.replace("_11", "_12"), logs))


@row("opensearch", "an index that refuses vectors and marks alike; then Redis is emptied")
def mark_refused(w: World) -> None:
    name = "stiff_web_2026_11"
    mappings = {
        "dynamic": False,
        "properties": {
            "level": {"type": "keyword"},
            "message": {"type": "text"},
            "timestamp": {"type": "date"},
        },
    }
    odd = [{**each, "unmapped": 1} for each in some_logs("stiff", 5)]
    odd += [{**each, "message": " "} for each in islice(odd, 2)]
    w.until_judged(another_index(w, name, odd, settings={"index.knn": True}, mappings=mappings))
    # Every write of a document with a field that is not mapped fails now, the mark's too.
    w.search("PUT", f"/{name}/_mapping", {"dynamic": "strict"})
    w.truth.unmarkable |= {key for key in w.truth.sources if key[0] == name}
    w.start()
    w.until(lambda: not w.checker.owed(w.truth), "all other logs were enriched", 90.0)
    sent_no_more(w)
    w.redis.flushall()
    redis_lost(w)
    w.truth.cut_inputs += 5
    w.until(lambda: w.redis.hlen(w.prefix + "refused") == len(odd), "they were tried once more")
    sent_no_more(w)


def sent_no_more(w: World) -> None:
    """Two whole runs that send nothing."""
    w.until(lambda: not w.active_run(), "the run has ended")
    sent, before = w.api.seen["inputs"], set(runs(w))
    w.until(
        lambda: len(set(runs(w)) - before) >= 2 and not w.active_run(), "two more runs ended", 60.0
    )
    if more := w.api.seen["inputs"] - sent:
        raise Stuck(f"{more} texts of logs that cannot be marked were sent again")
