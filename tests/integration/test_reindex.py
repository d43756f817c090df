"""`reindex`: an index that takes no vectors is replaced by a copy that does, on a real OpenSearch.

Cut off before any of its steps it goes on; logs that arrive meanwhile are in the copy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dev.embedding_model import Model
from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.services import Services
from enrich.errors import EnrichError
from enrich.log_store import LogStore
from enrich.reindexing.left_behind import LeftBehind
from enrich.reindexing.plan import NOTE, Refused
from enrich.reindexing.steps import Reindex
from enrich.settings import Settings
from tests.conftest import ROOT, Pipeline, Search
from tests.integration.test_cycle import assert_right_vectors, logs

pytestmark = pytest.mark.apart

OLD, NEW = "shop_2026_11", "shop_2026_11-enrich-knn"


class Cut(Exception):
    """As sudden as kill -9: nothing catches it."""


class Operator:
    """Calls `reindex` as the command does; may be cut off before any change of the cluster."""

    def __init__(self, settings: Callable[..., Settings]) -> None:
        self._settings = settings()
        self.told: list[str] = []
        #: Called before each change, with its number from 1 on, method and path.
        self.before: Callable[[int, str, str], None] = lambda n, method, path: None
        self.changes = 0
        #: Of the change that `before` is called for.
        self.body: Any = None

    def __call__(self, index: str = OLD, to: str = "", *, remove_old: bool = False) -> str:
        """Returns why there was nothing to do, or ""."""
        store = LogStore(self._settings)
        request = store.connection.request
        self.changes = 0

        def watched(method: str, path: str, body: Any = None, params: Any = None) -> str:
            if method in ("PUT", "DELETE") or path in ("/_reindex", "/_aliases"):
                self.changes += 1
                self.body = body
                self.before(self.changes, method, path)
            return request(method, path, body, params)

        store.connection.request = watched  # type: ignore[method-assign]
        work = Reindex(
            store.connection,
            expression=self._settings.index_expression,
            dimensions=self._settings.embedding_dimensions,
            say=lambda mark, text: self.told.append(f"{mark} {text}"),
            show=lambda progress: None,
        )
        try:
            plan = work.plan(index, to, remove_old=remove_old)
            if not plan.nothing:
                work.run(plan)
            return plan.nothing
        finally:
            store.close()


@pytest.fixture
def reindex(settings: Callable[..., Settings]) -> Operator:
    return Operator(settings)


@pytest.fixture
def old(clean: Services, search: Search) -> Iterator[str]:
    """An index of 300 logs and an alias, on two shards, as it is made without a template."""
    search.create(
        OLD,
        settings={
            "number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": "7s",
            "mapping.total_fields.limit": 555,
        },
        mappings={
            "_meta": {"owner": "shop"},
            "properties": {
                "level": {"type": "keyword"},
                "message": {"type": "text"},
                "o": {"type": "object", "enabled": False},
            },
        },
        aliases={"shop_logs": {"filter": {"exists": {"field": "message"}}, "is_write_index": True}},
    )  # fmt: skip
    search.index(OLD, logs(250, 20))
    search.index(
        OLD, [{**each, "_id": f"routed-{n}"} for n, each in enumerate(logs(50, 5))], routing="r"
    )
    # Bytes that another encoder would write otherwise.
    search.index(OLD, [{"_id": "odd", "_raw": b'{"o": {"z": 1.10, "a":1e400},  "level":"INFO"}'}])
    yield OLD


def without_note(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping["_meta"].pop(NOTE)
    return mapping


def all_of(search: Search, index: str) -> dict[str, tuple[Any, Any, Any]]:
    found = search("POST", f"/{index}/_search", {"size": 1000, "version": True})["hits"]["hits"]
    return {hit["_id"]: (hit.get("_routing"), hit["_source"], hit["_version"]) for hit in found}


def test_a_copy_stands_in_the_place_of_the_index_and_is_enriched(
    old: str, reindex: Operator, search: Search, pipeline: Callable[..., Pipeline], model: Model
) -> None:
    before = all_of(search, OLD)
    assert len(before) == 301
    assert pipeline().run().skipped_indices.keys() == {OLD}
    assert reindex() == ""
    assert all_of(search, NEW) == before
    assert search.raw(NEW, "odd") == search.raw(OLD, "odd")
    made = search("GET", f"/{NEW}?flat_settings=true")[NEW]
    settings = made["settings"]
    assert settings["index.knn"] == "true" and "index.hidden" not in settings
    assert settings["index.number_of_shards"] == "2"
    assert settings["index.refresh_interval"] == "7s"
    assert settings["index.mapping.total_fields.limit"] == "555"
    assert made["mappings"]["properties"]["log_vector"]["type"] == "knn_vector"
    assert without_note(made["mappings"])["_meta"] == {"owner": "shop"}
    alias = {"filter": {"exists": {"field": "message"}}, "is_write_index": True}
    assert made["aliases"] == {"shop_logs": alias}
    kept = search("GET", f"/{OLD}?flat_settings=true")[OLD]
    assert kept["aliases"] == {}
    assert {kept["settings"][f"index.{name}"] for name in ("hidden", "blocks.write")} == {"true"}
    # Found once, by the pattern that found the old one, and of the same project.
    record = pipeline().run()
    assert (record.found, record.skipped_indices) == (300, {})
    assert assert_right_vectors(search, NEW, model) == 300
    # The old one goes when it is told to, and its name leads to the copy.
    assert "--remove-old deletes it" in reindex()
    assert reindex(remove_old=True) == ""
    assert search.count(OLD, {"match_all": {}}) == 301
    assert list(search("GET", f"/{OLD}/_alias")) == [NEW]
    search.index(OLD, [{"_id": "later", "level": "INFO", "message": "x"}])
    assert "it was done" in reindex(remove_old=True)


def test_it_goes_on_wherever_it_was_cut_off(old: str, reindex: Operator, search: Search) -> None:
    before = all_of(search, OLD)
    struck: dict[str, None] = {}

    def cut(n: int, method: str, path: str) -> None:
        """Before each kind of change once; notes are of one kind that say the same."""
        kind = f"{method} {path}"
        if path.endswith("/_mapping"):
            note = reindex.body["_meta"][NOTE]
            kind += f" {note['step']} {sorted(name for name in note if note[name])}"
        if kind not in struck:
            struck[kind] = None
            raise Cut(kind)

    reindex.before = cut
    for _ in range(30):
        try:
            reindex(remove_old=True)
        except Cut:
            continue
        break
    else:
        pytest.fail(f"it never got to its end: {list(struck)}")
    told = " ".join(struck)
    assert len(struck) >= 10
    for change in ("POST /_reindex", f"PUT /{OLD}/_block/write", "compared", "POST /_aliases"):
        assert change in told
    assert all_of(search, NEW) == before
    assert list(search("GET", f"/{OLD}/_alias")) == [NEW]
    assert "blocks" not in json.dumps(search("GET", f"/{NEW}/_settings"))


#: When a process is killed: at a request whose method, path and body begin or have this, and
#: whether OpenSearch had got the request.
MOMENTS = [
    ("POST /_reindex", "", True),
    (f"POST /{NEW}/_mget", "", False),
    (f"PUT /{OLD}/_block/write", "", True),
    (f"POST /{OLD}/_search", '"gt"', False),
    (f"PUT /{OLD}/_settings", '"index.hidden":true', True),
    ("POST /_aliases", "", True),
]


@pytest.mark.parametrize(
    "remove_old",
    [pytest.param(False, id="kept", marks=pytest.mark.apart), pytest.param(True, id="removed")],
)
def test_a_process_that_was_killed_is_gone_on_with(
    old: str, search: Search, settings: Callable[..., Settings], clean: Services, remove_old: bool
) -> None:
    """kill -9 at each moment, logs arriving in between: nothing is lost, twice, or left blocked."""
    command = [sys.executable, "-m", "enrich", "reindex", "--index", OLD]
    moments = [*MOMENTS]
    if remove_old:
        # The last steps differ, those before do not.
        command += ["--remove-old", "--yes"]
        moments = [MOMENTS[-1]]
    told: list[str] = []
    #: The logs that were taken, and how many of the moments came.
    wanted = {*all_of(search, OLD)}
    struck = 0
    process: subprocess.Popen[str] | None = None

    def kill(asked: Asked, forward: Forward) -> Answered:
        nonlocal struck
        if struck < len(moments):
            at, having, after = moments[struck]
            body = asked.body.decode().replace('": ', '":')
            if f"{asked.method} {asked.path}".startswith(at) and having in body:
                struck += 1
                answer = forward(asked) if after else Answered(status=502)
                assert process is not None
                os.kill(process.pid, signal.SIGKILL)
                return answer
        return forward(asked)

    def arrive(n: int) -> None:
        row = json.dumps({"level": "ERROR", "message": f"late {n}", "timestamp": "2026-11-28"})
        answer = search.http.put(
            f"/shop_logs/_doc/late-{n}?refresh=true",
            content=row,
            headers={"content-type": "application/json"},
        )
        if answer.status_code == 201:
            wanted.add(f"late-{n}")

    def left_behind() -> str:
        store = LogStore(settings())
        try:
            expression = settings().index_expression
            return " ".join(LeftBehind(store.connection, expression).sentences())
        finally:
            store.close()

    with HttpProxy(clean.opensearch.url) as proxy:
        proxy.alter = kill
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENSEARCH_PORT": str(proxy.port)}
        for n in range(len(moments) + 1):
            process = subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            told.append(process.communicate(timeout=120)[0])
            if process.returncode != -signal.SIGKILL:
                break
            # Whoever searches by a pattern sees no log twice meanwhile.
            body = {"size": 1000, "_source": False}
            search("POST", "/shop_*/_refresh?expand_wildcards=all")
            hits = search("POST", "/shop_*/_search", body)["hits"]["hits"]
            assert len(hits) == len({hit["_id"] for hit in hits}), told
            sentence = left_behind()
            blocked = "blocks" in str(search("GET", f"/{OLD}/_settings"))
            if list(search("GET", f"/{OLD}/_alias")) == [OLD]:
                assert (f"{OLD} takes no writes since" in sentence) is blocked
            assert f"`python -m enrich reindex --index {OLD}` goes on" in sentence
            arrive(n)
    assert process is not None and process.returncode == 0, told
    assert struck == len(moments), told
    assert left_behind() == ""
    assert {*all_of(search, NEW)} == wanted
    assert len(wanted) > 301, "some arrived meanwhile"
    made = search("GET", f"/{NEW}?flat_settings=true")[NEW]
    assert not {"index.hidden", "index.blocks.write"} & {*made["settings"]}
    assert made["settings"]["index.refresh_interval"] == "7s"
    assert list(search("GET", "/_alias/shop_logs")) == [NEW]
    search.index("shop_logs", [{"_id": "after", "level": "INFO", "message": "taken"}])
    if remove_old:
        assert list(search("GET", f"/{OLD}/_alias")) == [NEW]
    else:
        assert 301 <= len(all_of(search, OLD)) <= len(wanted)


def test_logs_that_arrive_meanwhile_are_in_the_copy(
    old: str, reindex: Operator, search: Search
) -> None:
    def writer(n: int, method: str, path: str) -> None:
        if path == f"/{OLD}/_block/write":
            # After the first pass: new logs, a changed one.
            search.index(OLD, [{"_id": f"new-{n}", "level": "ERROR", "message": "late"}])
            search.index(OLD, [{"_id": f"{OLD}-3", "level": "ERROR", "message": "changed"}])

    reindex.before = writer
    reindex()
    assert search.count(NEW, {"match_all": {}}) == 302
    assert search.source(NEW, f"{OLD}-3")["message"] == "changed"
    assert all_of(search, NEW) == all_of(search, OLD)


def test_a_block_that_somebody_takes_away_loses_no_log(
    old: str, reindex: Operator, search: Search
) -> None:
    def cut(n: int, method: str, path: str) -> None:
        if path == "/_aliases":
            raise Cut(path)

    reindex.before = cut
    with pytest.raises(Cut):
        reindex()
    search("PUT", f"/{OLD}/_settings", {"index.blocks.write": None})
    search.index(OLD, [{"_id": "late", "level": "ERROR", "message": "late"}])
    reindex.before = lambda n, method, path: None
    assert reindex() == ""
    assert search.count(NEW, {"match_all": {}}) == 302
    search("PUT", f"/{OLD}/_settings", {"index.blocks.write": None})
    with pytest.raises(Refused, match="takes writes again since it was replaced"):
        reindex(remove_old=True)
    assert search.count(OLD, {"match_all": {}}) == 302


def test_who_writes_by_the_name_itself_is_not_shut_out(
    old: str, reindex: Operator, search: Search
) -> None:
    search("DELETE", f"/{OLD}/_alias/shop_logs")
    arrived: list[str] = []

    def writer(n: int, method: str, path: str) -> None:
        if path == "/_reindex" and not arrived:
            arrived.extend(search.index(OLD, [{"_id": "new", "level": "INFO", "message": "late"}]))

    reindex.before = writer
    with pytest.raises(Refused, match=r"under its own name.*--remove-old"):
        reindex()
    search.index(OLD, [{"_id": "still", "level": "INFO", "message": "taken"}])
    reindex(remove_old=True)
    search.index(OLD, [{"_id": "after", "level": "INFO", "message": "taken"}])
    assert search.count(NEW, {"ids": {"values": ["still", "after"]}}) == 2


def test_a_copy_that_differs_takes_nobodys_place(
    old: str, reindex: Operator, search: Search
) -> None:
    def deleter(n: int, method: str, path: str) -> None:
        if path == f"/{OLD}/_block/write":
            search("DELETE", f"/{OLD}/_doc/{OLD}-7?refresh=true")

    reindex.before = deleter
    with pytest.raises(Refused, match=r"do not hold the same logs \(300 and 301"):
        reindex()
    settings = search("GET", f"/{OLD}/_settings?flat_settings=true")[OLD]["settings"]
    assert "index.blocks.write" not in settings and "index.hidden" not in settings
    assert list(search("GET", "/_alias/shop_logs")) == [OLD]
    search("DELETE", f"/{NEW}")
    reindex.before = lambda n, method, path: None
    assert reindex() == ""


def test_a_copy_that_somebody_changed_takes_nobodys_place(
    old: str, reindex: Operator, search: Search
) -> None:
    """Whatever shard it is in, whether before the comparison or after it."""
    (last,) = search("GET", f"/{OLD}/_search?preference=_shards:1&size=1")["hits"]["hits"]
    route = f"?refresh=true&routing={last.get('_routing', last['_id'])}"
    path = f"/{NEW}/_doc/{last['_id']}{route}"

    def change() -> None:
        search("PUT", path, {"level": "ERROR", "message": "other"})

    def exchange() -> None:
        search("DELETE", path)
        search("PUT", f"/{NEW}/_doc/other?refresh=true", {"level": "ERROR", "message": "other"})

    for tamper in (change, exchange):
        for moment in ("marks", "blocked"):
            done: list[str] = []

            def before(
                n: int, method: str, path: str, tamper: Any = tamper, moment: str = moment,
                done: list[str] = done,
            ) -> None:  # fmt: skip
                if path.endswith("/_mapping") and reindex.body["_meta"][NOTE].get(moment):
                    if not done:
                        tamper()
                    done.append(path)

            reindex.before = before
            with pytest.raises(Refused, match=r"not hold the same logs \(other contents\)"):
                reindex()
            # What differs before the block is told before it.
            assert ("takes no writes" in reindex.told[-1]) is (moment == "blocked"), reindex.told
            settings = search("GET", f"/{OLD}/_settings?flat_settings=true")[OLD]["settings"]
            assert not {"index.blocks.write", "index.hidden"} & {*settings}
            search("DELETE", f"/{NEW}")


def test_what_cannot_be_replaced_is_refused_in_one_sentence(
    old: str, reindex: Operator, search: Search, stream: str, settings: Callable[..., Settings]
) -> None:
    def refused(words: str, index: str = OLD, to: str = "") -> None:
        with pytest.raises(EnrichError, match=words):
            reindex(index, to)
        assert reindex.changes == 0, "nothing was changed"

    refused("no index is called nope_2026_11", "nope_2026_11")
    refused("shop_logs is an alias: give the index behind it .shop_2026_11.", "shop_logs")
    refused("stands behind the data stream pay_core.*_rollover", ".ds-pay_core-000001")
    refused("pay_core, whose indices", "pay_core")
    refused("another project .other, not shop.", to="other_2026_11")
    search.create("shop_2026_11-enrich-knn", settings={"index.knn": True})
    refused("is not the copy of shop_2026_11")
    search("DELETE", f"/{NEW}")
    for block in ("read_only", "metadata", "read"):
        search("PUT", f"/{OLD}/_settings", {f"index.blocks.{block}": True})
        refused("remove that first")
        search("PUT", f"/{OLD}/_settings", {f"index.blocks.{block}": None})
    search("POST", f"/{OLD}/_close")
    refused("is closed: open it first")
    search("POST", f"/{OLD}/_open")
    search.create("whole_2026_11")
    assert "takes vectors as it is" in reindex("whole_2026_11")
    search.create("bare_2026_11", mappings={"_source": {"excludes": ["x"]}})
    refused("would take no vectors either", "bare_2026_11")
    narrow = Operator(lambda: settings(enrich_index_pattern=("shop_????_??", OLD)))
    with pytest.raises(Refused, match="ENRICH_INDEX_PATTERN"):
        narrow()


def test_the_command_says_what_it_does(old: str, search: Search, enrich: Any) -> None:
    plan = enrich("reindex", "--index", OLD, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert f"create {NEW}" in plan.stdout and "move the aliases shop_logs" in plan.stdout
    assert search("GET", f"/{NEW}", ok=False)["status"] == 404
    told = enrich("reindex", "--index", OLD)
    assert told.returncode == 0, told.stderr
    assert "301 logs compared: ids, routing and contents agree" in told.stdout
    assert f"{NEW} stands in the place of {OLD}; the aliases shop_logs are its own" in told.stdout
    gone = enrich("reindex", "--index", "nope_2026_11")
    assert gone.returncode == 3 and "no index is called nope_2026_11" in gone.stderr
