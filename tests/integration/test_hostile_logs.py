"""Logs made to harm: what one of them holds may cost that log its vector, and no other log's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dev.services import Services
from enrich.enrichment import text_groups
from enrich.log_store import index_template
from enrich.text import extract
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import logs

#: Of somebody who may write logs, and of somebody else.
HOSTILE, OTHER = "evil_web_2026_11", "shop_web_2026_11"
NEIGHBOURS = 20


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return opening.encode() * depth + b"1" + closing.encode() * depth


def log_with(field: bytes, message: str = '"disk failed"') -> dict[str, Any]:
    raw = b'{"level":"ERROR","timestamp":"2026-11-20T10:00:00Z","message":%b,"extra":%b}'
    return {"_raw": raw % (message.encode(), field)}


#: Each log, and why it fails, if it does.
ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "objects": (log_with(nested(997)), "source_too_deep"),
    "arrays": (log_with(nested(490, '[{"a":', "}]")), "source_too_deep"),
    "digits": (log_with(b"1" * 999), ""),
    "digits-and-half-a-pair": (log_with(b"1" * 999, '"half \\ud83d pair"'), ""),
    "half-a-name": (log_with(b'{"\\ud83d":1}'), ""),
    "a-million-fields": (
        log_with(b"{" + b",".join(b'"f%d":0' % n for n in range(300_000)) + b"}"),
        "",
    ),
    "our-fields": (
        {
            **{"level": "ERROR", "message": "planted", "timestamp": "2026-11-20T10:00:00Z"},
            **{"ai_embedding_dimensions": [[1], [2]], "ai_vector_source": [1, None]},
        },
        "",
    ),
}


def many_fields(count: int) -> dict[str, Any]:
    fields = b",".join(b'"f%d":0' % n for n in range(count))
    base = b'{"level":"ERROR","timestamp":"2026-11-20T10:00:00Z","message":"many fields",'
    return {"_raw": base + fields + b"}"}


@pytest.fixture
def lax(clean: Services, search: Search) -> None:
    """An index that takes any document: what is not mapped is kept and not looked at."""
    template = index_template(DIMENSIONS, [HOSTILE])["template"]
    search(
        "PUT", f"/{HOSTILE}", {**template, "mappings": {**template["mappings"], "dynamic": False}}
    )


def test_a_log_that_cannot_be_read_fails_alone(
    lax: None, pipeline: Callable[..., Pipeline], search: Search
) -> None:
    search.index(HOSTILE, [{**log, "_id": name} for name, (log, _) in ATTACKS.items()])
    # As many texts as make one chunk with the others.
    search.index(HOSTILE, logs(NEIGHBOURS, NEIGHBOURS))
    search.create(OTHER)
    search.index(OTHER, logs(NEIGHBOURS, NEIGHBOURS))
    failing = {name: code for name, (_, code) in ATTACKS.items() if code}

    record = pipeline(enrich_reuse_across_projects=True).run()

    assert record.failed == len(failing)
    assert record.deferred == 0
    assert record.vectors_written == 2 * NEIGHBOURS + len(ATTACKS) - len(failing)
    marked = {"term": {"ai_enrichment_status": "failed"}}
    found = search(
        "POST", f"/{HOSTILE}/_search", {"query": marked, "_source": ["ai_enrichment_error"]}
    )
    assert {
        hit["_id"]: hit["_source"]["ai_enrichment_error"] for hit in found["hits"]["hits"]
    } == failing
    # Not one of them is taken again.
    assert pipeline().run().found == 0


def test_an_error_that_nobody_thought_of_costs_one_log(
    pipeline: Callable[..., Pipeline],
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def text_of(source: dict[str, Any], mask: Any) -> str:
        if source["message"] == "the one":
            raise KeyError("secret words of the log")
        return extract.text_of(source, mask)

    search.create(OTHER)
    search.index(OTHER, [*logs(NEIGHBOURS, NEIGHBOURS), {**logs(1, 1)[0], "message": "the one"}])
    monkeypatch.setattr(text_groups, "text_of", text_of)

    record = pipeline().run()

    assert (record.vectors_written, record.deferred, record.failed) == (NEIGHBOURS, 1, 0)
    assert record.errors == 1
    told = [r.getMessage() for r in caplog.records if "was not foreseen" in r.getMessage()]
    assert any("KeyError" in line and f"{OTHER}-{NEIGHBOURS}" in line for line in told)
    assert not any("secret" in line for line in told)


@pytest.mark.apart
def test_one_log_does_not_switch_the_size_guard_off(
    lax: None, pipeline: Callable[..., Pipeline], search: Search
) -> None:
    search.index(HOSTILE, [many_fields(1_000_000)])
    search.create(OTHER)
    large = [{**log, "ballast": "x" * 3_000_000} for log in logs(12, 12)]
    search.index(OTHER, large)
    runner = pipeline()
    chunks: list[int] = []
    runner.before = lambda name, arguments: (
        chunks.append(len(arguments[0]["references"])) if name == "embed_and_update" else None
    )

    record = runner.run()

    assert record.vectors_written == 13
    # Sixteen megabytes of sources a chunk: five of these, and the other alone.
    assert max(chunks) <= 5
    assert json.dumps(record.skipped_indices) == "{}"
