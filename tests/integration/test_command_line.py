"""The command line on real servers, each command a process of its own as operators start it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.embedding_model import Model
from dev.service import Service
from enrich.ledger import Ledger
from enrich.log_store import index_template
from enrich.settings import load_settings
from enrich.text.extract import text_of
from enrich.wiring import build_ledger
from tests.conftest import DIMENSIONS, wait_for

ROOT = Path(__file__).parent.parent.parent
INDEX = "proj_2026_11"
OTHER = "proj_2026_10"

WORDS = ("connection refused", "disk is full", "certificate expired", "deadlock in database")


@pytest.fixture
def ledger(settings: Any) -> Ledger:
    return build_ledger(settings())


def _logs(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "level": "ERROR",
            "message": f"{WORDS[n % len(WORDS)]}\n\tat step {n % 40}",
            "timestamp": f"2026-11-01T00:{n // 60 % 60:02}:{n % 60:02}Z",
            "service_name": f"service-{n % 3}",
            **more,
        }
        for n in range(count)
    ]


def test_a_run_from_the_terminal(search: Any, worker: Service, enrich: Any) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(300))

    told = enrich("run", "--wait")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "run #1" in told.stdout and "300  found" in told.stdout
    assert "300 vectors written" in told.stdout
    assert "\x1b" not in told.stdout
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 300

    again = enrich("run", "--wait", "--json")
    assert again.returncode == 0
    record = json.loads(again.stdout)
    assert (record["found"], record["api_inputs"], record["number"]) == (0, 0, 2)
    assert record["run_ids"] == [record["run_id"]]

    status = json.loads(enrich("status", "--json").stdout)
    assert status["backlog"]["by_index"] == {
        INDEX: {"with_vector": 300, "without_vector": 0, "failed": 0}
    }
    assert [run["number"] for run in status["last_runs"]] == [2, 1]
    assert status["totals"]["vectors"] == 300
    screen = enrich("status")
    assert screen.returncode == 0
    assert "300 vectors in 2 runs" in screen.stdout

    hits = json.loads(enrich("search", "the disk has no space left", "--k", "3", "--json").stdout)
    assert len(hits) == 3
    assert all(hit["message"].startswith("disk is full") for hit in hits)
    assert hits[0]["cosine"] >= hits[-1]["cosine"] > 0
    shown = enrich("search", "disk is full", "--k", "1", "--index", "proj_*").stdout
    assert "disk is full" in shown and "at step" not in shown
    # One row a text, with how many logs have it, and where one of them is: 300 logs, 40 texts.
    assert (
        len({hit["message"] for hit in hits}) == 3 and hits[0]["id"] and hits[0]["index"] == INDEX
    )
    assert sum(hit["logs"] for hit in hits) >= 15 and f"{INDEX} " in shown and " logs" in shown
    for command in (["search", "disk"], ["failures"], ["retry-failed", "--yes"]):
        told = enrich(*command, "--index", "nope_2026_11")
        assert told.returncode == 2 and "no index matches nope_2026_11" in told.stderr


def test_search_over_indices_of_several_spaces(
    search: Any, worker: Service, enrich: Any, model: Model
) -> None:
    body = index_template(DIMENSIONS, [INDEX])["template"]
    body["mappings"]["properties"]["log_vector"]["method"]["space_type"] = "l2"
    search.create(INDEX)
    search.create(OTHER, **body)
    for index in (INDEX, OTHER):
        search.index(index, _logs(40))
    assert enrich("run", "--wait").returncode == 0

    hits = json.loads(enrich("search", WORDS[1], "--k", "10", "--json").stdout)

    # One row a text, with both indices that it stands in.
    assert len(hits) == len({hit["message"] for hit in hits}) == 10
    assert all(hit["indices"] == [OTHER, INDEX] and hit["index"] in hit["indices"] for hit in hits)
    (asked,) = model.embed([WORDS[1]])
    for hit in hits:
        (stored,) = model.embed([text_of(hit)])
        assert hit["cosine"] == pytest.approx(float(asked @ stored), abs=0.001)
        assert set(hit) <= {
            "cosine", "index", "id", "message", "level", "timestamp", "service_name", "trace_id",
            "logs", "indices",
        }  # fmt: skip
        assert hit["logs"] == 2
    shown = enrich("search", WORDS[1], "--k", "1").stdout
    assert "2 logs in 2 indices" in shown


def test_failed_logs_are_named_and_put_back(search: Any, worker: Service, enrich: Any) -> None:
    search.create(INDEX)
    search.index(INDEX, [*_logs(5), *({"level": "ERROR", "message": " "} for _ in range(3))])

    told = enrich("run", "--wait", "--json")
    assert told.returncode == 1
    record = json.loads(told.stdout)
    assert (record["failed"], record["vectors_written"]) == (3, 5)

    rows = json.loads(enrich("failures", "--json").stdout)
    assert {row["id"] for row in rows} == {f"{INDEX}-5", f"{INDEX}-6", f"{INDEX}-7"}
    assert {row["error"] for row in rows} == {"message_empty"}
    shown = enrich("failures")
    assert shown.returncode == 0
    assert "message is empty or blank" in shown.stdout

    back = enrich("retry-failed", "--yes")
    assert back.returncode == 0
    assert "3 logs are back in line" in back.stdout
    source = search.source(INDEX, f"{INDEX}-5")
    assert source == {"level": "ERROR", "message": " "}
    assert json.loads(enrich("status", "--json").stdout)["backlog"]["without_vector"] == 3


def test_without_a_worker_no_run_begins(enrich: Any, search: Any) -> None:
    prefix = "enrich:nobody:"
    search.create(INDEX)
    search.index(INDEX, _logs(2))
    told = enrich("run", ENRICH_REDIS_PREFIX=prefix)
    assert told.returncode == 3
    assert "no worker answers" in told.stderr
    status = json.loads(enrich("status", "--json", ENRICH_REDIS_PREFIX=prefix).stdout)
    assert status["totals"]["runs"] == 0 and status["active_run"] is None


def test_pause_resume_and_cancel(search: Any, worker: Service, enrich: Any, ledger: Ledger) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(20))
    # A run whose first page was never asked for, as after a lost message.
    run = ledger.runs.open("manual", 600).run
    assert enrich("pause").returncode == 0
    told = enrich("run", "--wait")
    assert told.returncode == 1
    assert "is active" in told.stdout and "paused" in told.stderr
    resumed = enrich("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"({run}) is active" in resumed.stdout
    followed = enrich("run", "--wait", "--json")
    assert followed.returncode == 0, followed.stderr
    assert ledger.records.of(run).vectors_written == 20

    stuck = ledger.runs.open("manual", 600).run
    cancelled = enrich("cancel")
    assert cancelled.returncode == 0
    assert "was cancelled" in cancelled.stdout
    assert ledger.records.of(stuck).state == "abandoned"
    wait_for(lambda: ledger.runs.active() == "", worker)
    assert "no run is active" in enrich("cancel").stdout


def test_a_halted_run_ends_with_3(
    search: Any, worker: Service, enrich: Any, embeddings: Any
) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(3))
    embeddings.faults({"kind": "status", "status": 401, "times": 0})
    told = enrich("run", "--wait", "--json")
    assert told.returncode == 3
    record = json.loads(told.stdout)
    assert record["state"] == "halted"
    assert "OPENAI_API_KEY" in record["halt_reason"]
    assert "OPENAI_API_KEY" in enrich("status").stdout
    assert f"run halted: {record['halt_reason']}" in worker.log.read_text()
    embeddings.reset()
    assert enrich("run", "--wait").returncode == 0, "mended, the next run goes on"
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 3


# -- check


def _state(search: Any) -> Any:
    """Everything that a write would move."""
    return (
        search("GET", "/_stats?level=shards&filter_path=**.seq_no"),
        search("GET", "/_all/_mapping"),
        sorted(index["index"] for index in search("GET", "/_cat/indices?format=json")),
    )


def test_check_passes_and_changes_nothing(search: Any, worker: Service, enrich: Any) -> None:
    search.create(INDEX)
    search.create(
        "bare_2026_11",
        settings={"index.knn": True},
        mappings={"properties": {"level": {"type": "keyword"}}},
    )
    search.index(INDEX, _logs(4))
    search.index("bare_2026_11", _logs(2))
    search("PUT", "/_ingest/pipeline/adds", {"processors": [{"set": {"field": "x", "value": 1}}]})
    search("PUT", "/bare_2026_11/_settings", {"index.final_pipeline": "adds"})
    search("PUT", f"/{INDEX}/_settings", {"index.default_pipeline": "adds"})
    before = _state(search)
    told = enrich("check")
    assert told.returncode == 0, told.stdout
    assert _state(search) == before
    for words in (
        "Valkey", "noeviction", "1 worker with 2 processes answers", "opensearch 3.",
        "k-NN plugin is installed", "2 indices match",
        "6 ERROR logs can be given a vector", "1536 dimensions", "tokens",
        "add to its mapping: ai_embedding_dimensions", "final pipeline",
        "an update would be allowed in 2 indices", "missing fields may be added",
    ):  # fmt: skip
        assert words in told.stdout, words
    assert "✗" not in told.stdout
    assert load_settings().openai_api_key.get_secret_value() not in told.stdout


def test_check_says_what_is_wrong_with_each_index(search: Any, enrich: Any) -> None:
    wrong = {
        "float_2026_11": {"mappings": {"properties": {"log_vector": {"type": "float"}}}},
        "noknn_2026_11": {},
        "small_2026_11": {
            "mappings": {"properties": {"log_vector": {"type": "knn_vector", "dimension": 8}}}
        },
        "text_2026_11": {"mappings": {"properties": {"level": {"type": "text"}}}},
        "blocked_2026_11": {},
    }
    for name, body in wrong.items():
        properties = {"level": {"type": "keyword"}, "message": {"type": "text"}}
        properties |= body.get("mappings", {}).get("properties", {})
        search.create(
            name,
            settings={"index.knn": name != "noknn_2026_11"},
            mappings={"properties": properties},
        )
        search.index(name, [{"level": "ERROR", "message": "x"}])
    search("PUT", "/blocked_2026_11/_settings", {"index.blocks.write": True})
    told = enrich("check")
    assert told.returncode == 1, told.stdout
    lines = [line for line in told.stdout.splitlines() if "✗" in line]
    for name, words in {
        "float_2026_11": "mapped as float, not knn_vector",
        "noknn_2026_11": "index.knn is not set",
        "small_2026_11": "dimension 8, not 1536",
        "text_2026_11": "level is mapped as text",
        "blocked_2026_11": "index.blocks.write",
    }.items():
        assert any(name in line and words in line for line in lines), (name, told.stdout)


def test_check_names_data_streams_that_are_left_out(enrich: Any, stream: str) -> None:
    assert f"data streams are left out: {stream};" in enrich("check").stdout
    told = enrich("check", ENRICH_INDEX_PATTERN="*_*,-.*,.ds-*_*").stdout
    assert "left out" not in told and "1 index match" in told


def test_check_finds_a_cluster_that_takes_no_writes(search: Any, enrich: Any) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(1))
    search("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": True}})
    try:
        told = enrich("check")
    finally:
        search("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": None}})
    assert told.returncode == 3
    assert f"{INDEX}: it takes no writes now" in told.stdout


def test_check_looks_at_the_rest_when_servers_are_down(enrich: Any, search: Any) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(1))
    told = enrich("check", REDIS_URL="redis://127.0.0.1:1/0")
    assert told.returncode == 3
    assert "✗ Redis cannot be reached" in told.stdout and "update would be allowed" in told.stdout
    told = enrich("check", OPENSEARCH_PORT="1")
    assert told.returncode == 3
    assert "✗ OpenSearch at http://127.0.0.1:1 cannot be reached" in told.stdout
    assert "a phrase of" in told.stdout
    told = enrich("check", OPENAI_API_KEY="sk-wrong")
    assert told.returncode == 3
    assert "refused the key (401)" in told.stdout and "sk-wrong" not in told.stdout


@pytest.mark.apart
def test_check_full_runs_one_cycle(search: Any, worker: Service, enrich: Any) -> None:
    search.create(INDEX)
    search.index(INDEX, _logs(10))
    asked = enrich("check", "--full")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    told = enrich("check", "--full", "--yes")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "10 vectors written" in told.stdout
    refused = enrich("check", "--full", "--yes", OPENSEARCH_PORT="1")
    assert refused.returncode == 3
    assert "no cycle was run" in refused.stderr


# -- template


def test_template_gives_new_indices_a_right_mapping(search: Any, enrich: Any) -> None:
    printed = json.loads(enrich("template").stdout)
    told = enrich("template", "--apply")
    assert told.returncode == 0, told.stderr
    there = search("GET", "/_index_template/enrich-logs")["index_templates"][0]["index_template"]
    assert there["index_patterns"] == printed["index_patterns"]
    search("PUT", "/new_2026_12")
    mapping = search("GET", "/new_2026_12/_mapping")["new_2026_12"]["mappings"]["properties"]
    assert mapping["log_vector"]["type"] == "knn_vector"
    assert enrich("template", "--apply").returncode == 0


@pytest.mark.parametrize("kind", ["_index_template", "_template"])
def test_template_takes_no_other_ones_place(search: Any, enrich: Any, kind: str) -> None:
    settings = {"number_of_shards": 3, "number_of_replicas": 0}
    body: dict[str, Any] = {"index_patterns": ["acme_*"]}
    body |= {"settings": settings} if kind == "_template" else {"template": {"settings": settings}}
    search("PUT", f"/{kind}/theirs", body)
    # As little to do with our indices as those that come with OpenSearch.
    search("PUT", "/_index_template/metrics", {"index_patterns": ["metrics-*-*", ".x*"]})
    search("PUT", "/acme_2026_11")
    refused = enrich("template", "--apply")
    assert refused.returncode == 3
    assert "the template theirs holds for indices such as acme_2026_11" in refused.stderr
    search("PUT", "/acme_2026_12")
    made = search("GET", "/acme_2026_12/_settings")["acme_2026_12"]["settings"]["index"]
    assert made["number_of_shards"] == "3"
    search("DELETE", f"/{kind}/theirs")
    assert enrich("template", "--apply").returncode == 0
