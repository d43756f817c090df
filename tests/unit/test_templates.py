"""Which names the templates hold for, what stands in their way, and what they leave out."""

from __future__ import annotations

from typing import Any

import pytest

from enrich.log_store import index_template
from enrich.log_store.new_indices import next_names
from enrich.log_store.paths import common_name, holds
from enrich.log_store.templates import (
    OtherTemplate,
    left_out,
    objection,
    stream_template,
    taken_over,
)
from enrich.schema import schema_of


def takes(template: dict[str, Any], name: str) -> bool:
    return any(holds(pattern, name) for pattern in template["index_patterns"])


@pytest.mark.parametrize(
    ("patterns", "indices", "name", "taken"),
    [
        (["*_*", "-.*"], [], "shop_logs-000002", True),
        (["*_*", "-.*"], [], "shop_app-2026.11.28", True),
        (["*_*", "-.*"], [], "3f25_2026_11", True),
        (["*_*", "-.*"], [], ".kibana_1", False),
        (["*_*", "-.*"], [], "logs-000002", False),
        (["*_*", "-.*"], [], "한글_2026_12", False),
        (["*_*", "-.*"], ["한글_2026_11"], "한글_2026_12", True),
        (["*"], [], "logs-000002", True),
        (["*"], [], ".tasks", False),
        (["*-logs"], [], "shop-logs", True),
        (["*logs"], [], "logs", True),
        (["app-*", "-app-old*"], [], "app-2026.11.28", True),
        # Found through an alias, which no template knows.
        (["current"], ["logs-000001"], "logs-000002", True),
        (["current"], ["logs-000001"], "other-000002", False),
        (["today"], ["app-2026.11.28"], "app-2026.11.29", True),
        (["today"], ["whatever"], "whatever", True),
        ([".ds-shop_*"], [".ds-shop_logs-000001"], "shop_logs", False),
        (["shop_logs"], [".ds-shop_logs-000001"], "shop_logs", False),
    ],
)
def test_a_template_holds_for_what_the_pattern_finds(
    patterns: list[str], indices: list[str], name: str, taken: bool
) -> None:
    assert takes(index_template(4, patterns, indices=indices), name) is taken


@pytest.mark.parametrize(
    ("patterns", "streams"),
    [
        (["*_*", "-.*", ".ds-shop_*"], ["shop_*"]),
        ([".ds-shop_logs-*"], ["shop_logs", "shop_logs-*"]),
        ([".ds-shop_logs-000001"], ["shop_logs"]),
        (["*_*", "-.ds-shop_*"], None),
        ([".ds-*"], None),
    ],
)
def test_data_streams_have_a_template_of_their_own(
    patterns: list[str], streams: list[str] | None
) -> None:
    made = stream_template(4, patterns, schema_of("ecs", ["ERROR"]))
    assert (made and made["index_patterns"]) == streams
    if made:
        assert made["data_stream"] == {}
        assert made["priority"] > index_template(4, patterns)["priority"]
        assert made["template"]["mappings"]["properties"]["log_vector"]["dimension"] == 4


def test_a_stream_of_our_logs_has_their_time() -> None:
    made = stream_template(4, [".ds-shop_*"])
    assert made is not None
    assert made["data_stream"] == {"timestamp_field": {"name": "timestamp"}}


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("a*_*", "acme_*", "acme_"),
        ("shop-*", "*-logs", "shop-logs"),
        ("a*", "b*", None),
        ("a*_*", "metrics-*-*", None),
        ("m*_*", "metrics-*-*", "metrics"),
        ("*", "x", "x"),
        ("abc", "abc", "abc"),
        ("abc", "ab", None),
        ("a*c", "ab*", "ab"),
    ],
)
def test_patterns_that_share_a_name(one: str, other: str, name: str | None) -> None:
    found = common_name(one, other)
    assert (found is None) is (name is None) and common_name(other, one) == found
    if found is not None and name is not None:
        assert found.startswith(name) and holds(one, found) and holds(other, found)


def other(*patterns: str, priority: int = 0, **more: Any) -> OtherTemplate:
    return OtherTemplate(name="theirs", patterns=patterns, priority=priority, **more)


@pytest.mark.parametrize(
    ("theirs", "indices", "words"),
    [
        (other("acme_*"), ["acme_2026_11"], "indices such as acme_2026_11"),
        (other("acme_*", is_older=True, priority=9), ["acme_2026_11"], "such as acme_2026_11"),
        (other("acme_*"), ["shop_2026_11"], ""),
        (other("acme_*", priority=100), ["acme_2026_11"], ""),
        (other("acme_*", priority=1), [], "the same priority (1)"),
        (other("acme_*", is_stream=True), [], "makes data streams of names such as acme_"),
        (other("acme_*", is_stream=True, priority=100), [], ""),
        (other(".x*"), [".x_y"], ""),
        (other("logs-*"), ["logs-2026"], ""),
    ],
)
def test_what_stands_in_the_way_of_a_template(
    theirs: OtherTemplate, indices: list[str], words: str
) -> None:
    why = objection(index_template(4, ["*_*", "-.*"]), [theirs], indices)
    assert (words in why) if words else why == ""


def test_templates_that_are_not_heard_any_more_are_named() -> None:
    ours = index_template(4, ["shop_*"])
    told = list(taken_over(ours, [other("shop_a*"), other("shop_a*", priority=2), other("x*")]))
    assert len(told) == 1 and "theirs" in told[0] and "shop_a" in told[0]


def test_what_stays_out_is_said() -> None:
    assert list(left_out(["shop_*", "-.*"], None)) == []
    (wide,) = left_out(["*_*", "-.*"], None)
    assert "begin with a dot" in wide
    (also,) = left_out(["shop_*", "-shop_metrics*"], None)
    assert "shop_metrics*" in also
    (streams,) = left_out([".ds-shop_*"], stream_template(4, [".ds-shop_*"]))
    assert "shop_*" in streams and "no plain index" in streams


def test_the_next_of_each_series() -> None:
    found = ["a_2026_10", "a_2026_11", "logs-999999", "logs-1000000", ".ds-pay_core-000003", "b_c"]
    assert next_names(found) == ["a_2026_12", "logs-1000001", "pay_core"]
