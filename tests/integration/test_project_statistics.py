"""Statistics on a real OpenSearch: counts and samples of one project, whatever its indices are like
and whoever asks. The witness is what was indexed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from enrich.analysis.sampling import Kind, estimate
from enrich.api.last_hours import NoLogs
from enrich.api.statistics import compare, hourly
from enrich.log_store import LogStore
from enrich.log_store.project_logs import AnswerInPart, ProjectRefused, ProjectUnknown
from enrich.settings import Settings
from tests.conftest import Search

#: The end of the period; no clock is asked.
NOW = datetime(2026, 11, 10, 5, 20, 30, tzinfo=UTC)
HOURS = 30
KOLKATA = ZoneInfo("Asia/Kolkata")
LEVELS = {
    "error": ("ERROR", "error", "Error"),
    "warn": ("WARN", "warning", "Warning", "WARNING"),
    "info": ("INFO", "info", "Info"),
    "": ("DEBUG", "FATAL", "Errors", "none"),
}
SHARES = {"error": 1, "warn": 2, "info": 6, "": 1}


def plain(level: str, at: str) -> dict[str, Any]:
    return {"level": level, "timestamp": at, "message": "a"}


def otel(level: str, at: str) -> dict[str, Any]:
    numbers = {"ERROR": 18, "WARN": 13, "INFO": 9, "DEBUG": 5}
    number = numbers.get(level.upper(), 21)
    return {"severity": {"text": "", "number": number}, "@timestamp": at, "body": "a"}


def logs(
    count: int, draw: random.Random, form: Callable[[str, str], dict[str, Any]], seen: Counter[str]
) -> list[dict[str, Any]]:
    """Logs of all times around the period; those within are counted."""
    made = []
    for _ in range(count):
        (kind,) = draw.choices(list(SHARES), list(SHARES.values()))
        level = draw.choice(LEVELS[kind])
        if form is otel:
            level = {"error": "ERROR", "warn": "WARN", "info": "INFO", "": "DEBUG"}[kind]
        at = NOW - timedelta(milliseconds=draw.randrange(-3_600_000, (HOURS + 5) * 3_600_000))
        made.append(form(level, at.isoformat(timespec="milliseconds")))
        if NOW - timedelta(hours=HOURS) <= at < NOW:
            local = at.astimezone(KOLKATA).replace(minute=0, second=0, microsecond=0)
            seen.update(["total", f"at {local.isoformat()}", *([kind] if kind else [])])
    return made


@pytest.fixture
def store(settings: Callable[..., Settings]) -> Any:
    opened = LogStore(settings(enrich_schema="auto"))
    yield opened
    opened.close()


def test_counts_and_samples_of_a_project(store: LogStore, search: Search) -> None:
    draw, seen = random.Random(7), Counter[str]()
    search.create("shop_eu_2026_11")
    search.index("shop_eu_2026_11", logs(1500, draw, plain, seen))
    # Mapped by itself: a text with a keyword beside it; times at the month's ends.
    search.create("shop_eu_2026_10", settings={"number_of_shards": 3})
    search.index("shop_eu_2026_10", logs(1500, draw, plain, seen))
    search.create("shop_eu_2026_12", settings={"number_of_shards": 2})
    search.index("shop_eu_2026_12", logs(900, draw, otel, seen))
    for other in ("shop_2026_11", "shop_eu_x_2026_11", "shop_eu2_2026_11", "xshop_eu_2026_11"):
        search.create(other)
        search.index(other, logs(50, draw, plain, Counter()))

    # The id as a UUID has its dashes, or as the indices are called.
    for project in ("shop_eu", "shop-eu", "SHOP-EU"):
        told = hourly(store.level_counts, KOLKATA, project, time_hours=HOURS, now=NOW)
        assert told.total_logs == seen["total"] == sum(hour.total for hour in told.hourly_data)
        assert {f"at {hour.hour}": hour.total for hour in told.hourly_data if hour.total} == {
            at: count for at, count in seen.items() if at.startswith("at ")
        }
        assert len(told.hourly_data) == HOURS + 1
        for level in ("error", "warn", "info"):
            assert sum(getattr(hour, level) for hour in told.hourly_data) == seen[level]
        assert told.error_rate == round(100 * seen["error"] / seen["total"], 5)
        assert told.peak_count == max(v for k, v in seen.items() if k.startswith("at "))

    both = compare(
        store.level_counts, KOLKATA, "shop-eu", time_hours=HOURS, sample_size=200, seed=1, now=NOW
    )
    truth, guess = both.db_statistics, both.ai_statistics
    assert (truth.total_logs, truth.error_count, truth.warn_count, truth.info_count) == (
        seen["total"], seen["error"], seen["warn"], seen["info"],
    )  # fmt: skip
    assert (guess.method, guess.logs_read) == ("sample", 200)
    assert guess.estimated_total_logs == pytest.approx(seen["total"], rel=0.3)
    assert guess.estimated_error_rate == pytest.approx(truth.error_rate, abs=8)
    assert both == compare(
        store.level_counts, KOLKATA, "shop-eu", time_hours=HOURS, sample_size=200, seed=1, now=NOW
    )

    counts = store.level_counts
    start, indices = NOW - timedelta(hours=HOURS), counts.indices_of("shop-eu")
    assert indices == ["shop_eu_2026_10", "shop_eu_2026_11", "shop_eu_2026_12"]
    everything = counts.sample(indices, start, NOW, 10_000, 5)
    assert len(everything) == seen["total"]
    assert Counter(level for log in everything for level in log.levels) == Counter(
        {level: seen[level] for level in ("error", "warn", "info")}
    )
    # Scores of 24 bits, all over their range, and the sample is those that are highest.
    scores = [log.score for log in everything]
    assert all(0 <= score < 1 and (score * 2**24).is_integer() for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) / len(scores) == pytest.approx(0.5, abs=0.03)
    assert counts.sample(indices, start, NOW, 60, 5) == everything[:60]
    assert counts.sample(indices, start, NOW, 60, 6) != everything[:60]

    # What it is for: intervals that hold the truth, and numbers that are right on average.
    found = [estimate(counts.sample(indices, start, NOW, 60, seed), 60) for seed in range(40)]
    held = sum(one.total.low <= seen["total"] <= one.total.high for one in found)
    held += sum(one.error.low <= seen["error"] <= one.error.high for one in found)
    assert 68 <= held <= 80
    mean = sum(one.total.value for one in found) / len(found)
    assert mean == pytest.approx(seen["total"], rel=0.09)

    census = compare(counts, KOLKATA, "shop_eu", time_hours=1, sample_size=500, seed=1, now=NOW)
    assert census.ai_statistics.method == "census"
    assert census.accuracy_metrics.overall_accuracy == 100
    assert census.ai_statistics.intervals.estimated_warn_count.kind is Kind.EXACT


def test_each_hour_is_sampled_by_itself_where_there_are_too_many_for_one(
    store: LogStore, search: Search
) -> None:
    """With a bound that a test can pass; the indices and their hours are uneven."""
    seen = Counter[str]()
    # From the period's first hour on, which is cut as the last one is: Kolkata is half an hour off.
    per_hour = {0: 700, 1: 12, 2: 0, 3: 300, 4: 90, 5: 0, 6: 1, 7: 400, 8: 25}
    first = datetime(2026, 11, 9, 21, 30, tzinfo=UTC)
    for index, shards, share in (("busy_2026_11", 3, 3), ("busy_2026_10", 1, 1)):
        search.create(index, settings={"number_of_shards": shards})
        made = []
        for hour, count in per_hour.items():
            for n in range(count * share):
                level = ("ERROR", "INFO", "INFO", "WARN", "DEBUG")[n % 5 if hour != 7 else 1]
                # In the part of the first and of the last hour that the period has.
                into = timedelta(minutes=20 if hour < 8 else 0, seconds=n % 600)
                at = first + timedelta(hours=hour) + into
                made.append(plain(level, at.isoformat(timespec="milliseconds")))
                seen.update(["total", level, f"hour {hour}"])
        search.index(index, made)
    now = first + timedelta(hours=8, minutes=15)

    def drawn(seed: int, **options: Any) -> Any:
        given = {"time_hours": 8, "sample_size": 200, "seed": seed, "now": now, **options}
        return compare(store.level_counts, KOLKATA, "busy", **given)

    one = drawn(1)
    assert one.ai_statistics.logs_read == 200
    assert "parts" not in one.ai_statistics.statistical_reasoning
    parts = [drawn(seed, most_of_a_sample=1000) for seed in range(20)]
    for found in parts:
        # 200 logs of nine hours are 23 of each; where there are fewer, these.
        assert found.ai_statistics.logs_read == sum(
            min(23, seen[f"hour {hour}"]) for hour in per_hour
        )
        assert "in 9 parts, one for each hour" in found.ai_statistics.statistical_reasoning
        assert found.ai_statistics.method == "sample"
        assert found.db_statistics == one.db_statistics
        assert found.db_statistics.total_logs == seen["total"]
        assert found.db_statistics.error_count == seen["ERROR"]
    limits = [found.ai_statistics.intervals for found in parts]
    held = sum(
        estimated.low <= true <= estimated.high
        for each in limits
        for estimated, true in (
            (each.estimated_total_logs, seen["total"]),
            (each.estimated_error_count, seen["ERROR"]),
            (each.estimated_warn_count, seen["WARN"]),
            (each.estimated_info_count, seen["INFO"]),
        )
    )
    assert held >= 68, "of 80, some 95 % of which hold the truth"
    mean = sum(found.ai_statistics.estimated_total_logs for found in parts) / len(parts)
    assert mean == pytest.approx(seen["total"], rel=0.1)


HOSTILE = (
    *("*", "shop*", "shop_eu,other", "-shop", "_all", "..", ".kibana", "shop_eu_2026_11/_search"),
    *("shop eu", "shop?", "shop#", "shop\\", "shop\n", '"shop"', "<shop-{now/d}>", "a:shop", "|"),
    *("x" * 300, "\u202eshop", "shop\x00"),
)
#: These could be names of indices, and no index is called by them.
UNKNOWN = ("shop%5F_eu", "shop%2C", "sho", "shop_e", "shop_eu_2026_11", "shop..", "상점", "&a=b")


def test_no_id_reaches_the_logs_of_another_project(store: LogStore, search: Search) -> None:
    search.create("shop_eu_2026_11")
    search.index("shop_eu_2026_11", logs(20, random.Random(1), plain, Counter()))
    for project in HOSTILE:
        with pytest.raises(ProjectRefused) as refused:
            store.level_counts.indices_of(project)
        assert "shop" not in str(refused.value)
    with pytest.raises(ProjectRefused):
        store.level_counts.indices_of("")
    for project in UNKNOWN:
        with pytest.raises(ProjectUnknown):
            compare(store.level_counts, KOLKATA, project, now=NOW)
    with pytest.raises(NoLogs):
        compare(store.level_counts, KOLKATA, "shop_eu", now=NOW - timedelta(days=300))
    with pytest.raises(NoLogs):
        hourly(store.level_counts, KOLKATA, "shop_eu", now=NOW + timedelta(days=300))


def test_a_shard_that_does_not_answer_voids_the_sample(store: LogStore, search: Search) -> None:
    search.create("shop_eu_2026_11")
    search.index("shop_eu_2026_11", logs(200, random.Random(1), plain, Counter()))
    nowhere = {"index.routing.allocation.require._name": "nobody"}
    search("PUT", "/shop_eu_2026_12?wait_for_active_shards=0", {"settings": nowhere})
    for call in (compare, hourly):
        with pytest.raises(AnswerInPart, match=r"shop_eu_2026_12 \(not every shard answers"):
            call(store.level_counts, KOLKATA, "shop_eu", now=NOW)  # type: ignore[operator]
    search("DELETE", "/shop_eu_2026_12")

    # A time that is no date cannot be counted by; a part of the logs would be missed.
    search.create("shop_eu_2026_12", mappings={"properties": {"timestamp": {"type": "boolean"}}})
    search.index("shop_eu_2026_12", [{"level": "INFO", "timestamp": True}])
    with pytest.raises(AnswerInPart, match="cannot be searched"):
        compare(store.level_counts, KOLKATA, "shop_eu", now=NOW)
    search("DELETE", "/shop_eu_2026_12")

    search("PUT", "/shop_eu_2026_11/_settings", {"index.blocks.read": True})
    try:
        with pytest.raises(AnswerInPart, match="cluster_block_exception"):
            compare(store.level_counts, KOLKATA, "shop_eu", now=NOW)
    finally:
        search("PUT", "/shop_eu_2026_11/_settings", {"index.blocks.read": None})


#: What a log may be beside its level and time: none of it may change a number.
OTHER_FIELDS: dict[str, tuple[Any, ...]] = {
    "service_name": (
        *("payment", "order", "auth", "search", "cart", "mail", "결제", "ERROR", "info", "a.b.c"),
        *("with blank", "WARN", "", None, "x" * 200, "svc-1,svc-2"),
    ),
    "source": (
        *("stdout", "stderr", "kafka", "file", "syslog", "journald", "browser", "gateway"),
        *("error", "", None, "a/b.py:17", "소스", "*"),
    ),
    "layer": (
        *("controller", "service", "repository", "middleware", "client", "scheduler", "worker"),
        *("db", "cache", "queue", "infra", "INFO", "", None),
    ),
    "http_method": ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "", None),
    "http_status": (
        *(100, 101, 200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 409, 410, 422, 429),
        *(500, 501, 502, 503, 504, 599, 0, -1, None),
    ),
}  # fmt: skip

#: How levels are written, and as what they count.
SPELLINGS: tuple[tuple[Any, str], ...] = (
    *((word, "error") for word in ("ERROR", "error", "Error")),
    *((word, "warn") for word in ("WARN", "warn", "Warn", "WARNING", "warning", "Warning")),
    *((word, "info") for word in ("INFO", "info", "Info")),
    *((word, "") for word in ("DEBUG", "TRACE", "FATAL", "CRITICAL", "NOTICE", "ERRORS", "ERR")),
    *((word, "") for word in ("INFORMATION", "WARNINGS", "NO_ERROR", "error info", "", None)),
)

#: Where in its hour a log lies, and how its time is written; the hour is the one it counts into.
TIMES: tuple[tuple[str, timedelta], ...] = (
    ("%FT%H:00:00.000Z", timedelta()), ("%FT%H:00:00.001Z", timedelta()),
    ("%FT%H:00:00Z", timedelta()), ("%FT%H:29:59.999Z", timedelta()),
    ("%FT%H:30:00.000Z", timedelta()), ("%FT%H:59:59.999Z", timedelta()),
    ("%FT%H:59:59.999999Z", timedelta()), ("%FT%H:59:59Z", timedelta()),
    ("%FT%H:15:00.000+00:00", timedelta()), ("%FT%H:15:00.000+09:00", timedelta(hours=9)),
    ("%FT%H:15:00.000-05:00", timedelta(hours=-5)), ("%FT%H:45:00+05:30", timedelta(hours=5)),
    ("%FT%H:00:00.000+01:00", timedelta(hours=1)), ("%FT%H:59:59.999-01:00", timedelta(hours=-1)),
)  # fmt: skip

#: Logs of each level: all of one, none, one alone, few among many.
MIXES = (
    {"error": 1}, {"info": 1}, {"": 1}, {"error": 5}, {"warn": 4}, {"info": 6, "error": 1},
    {"error": 2, "warn": 3, "info": 4, "": 1}, {"": 7, "error": 1}, {"warn": 1, "info": 8},
    {"error": 3, "": 3}, {"error": 1, "warn": 1, "info": 1},
)  # fmt: skip
WORDS = {"error": "ERROR", "warn": "WARN", "info": "INFO", "": "DEBUG"}


def cases() -> list[tuple[str, dict[str, int], list[dict[str, Any]]]]:
    """Each with a name, what counts in it, and its logs without their times."""
    found = []
    for field, values in OTHER_FIELDS.items():
        for value in values:
            mix = MIXES[len(found) % len(MIXES)]
            made = [
                {"level": WORDS[kind], field: value}
                for kind, many in mix.items()
                for _ in range(many)
            ]
            found.append((f"{field} {value!r}"[:40], mix, made))
    for n, (word, kind) in enumerate(SPELLINGS):
        many = 1 + n % 3
        found.append((f"level {word!r}", {kind: many}, [{"level": word}] * many))
    for n, (form, shift) in enumerate(TIMES):
        mix = MIXES[n % len(MIXES)]
        made = [
            {"level": WORDS[kind], "at": (form, shift)}
            for kind, many in mix.items()
            for _ in range(many)
        ]
        found.append((f"time {form}", mix, made))
    return found


def test_only_level_and_time_count(store: LogStore, search: Search) -> None:
    """A table of logs of every kind, each case in an hour of its own."""
    table = cases()
    assert 120 <= len(table) < 168
    now = datetime(2026, 11, 20, tzinfo=UTC)
    first = now - timedelta(hours=168)
    search.create("table_2026_11")
    documents = []
    for hour, (_, _, made) in enumerate(table):
        start = first + timedelta(hours=hour)
        for log in made:
            form, shift = log.get("at", ("%FT%H:20:00.000Z", timedelta()))
            fields = {name: value for name, value in log.items() if name != "at"}
            at = (start + shift).strftime(form)
            documents.append({**fields, "message": "a", "timestamp": at})
    search.index("table_2026_11", documents)

    told = hourly(store.level_counts, ZoneInfo("UTC"), "table", time_hours=168, now=now)
    assert told.total_logs == len(documents) == sum(hour.total for hour in told.hourly_data)
    for (name, mix, _), hour in zip(table, told.hourly_data, strict=False):
        counts = (hour.total, hour.error, hour.warn, hour.info)
        expected = (sum(mix.values()), *(mix.get(level, 0) for level in ("error", "warn", "info")))
        assert counts == expected, name
    assert not any(hour.total for hour in told.hourly_data[len(table) :])

    # A sample sees the same levels: of an hour with few logs it is a count.
    for hour in range(0, len(table), 9):
        name, mix, _ = table[hour]
        end = first + timedelta(hours=hour + 1)
        both = compare(
            store.level_counts, ZoneInfo("UTC"), "table", time_hours=1, sample_size=50, now=end
        )
        guess = both.ai_statistics
        total, error = sum(mix.values()), mix.get("error", 0)
        assert (guess.estimated_total_logs, guess.estimated_error_count) == (total, error), name
        assert guess.estimated_warn_count == mix.get("warn", 0), name
        assert guess.estimated_error_rate == round(100 * error / total, 5), name
        assert both.accuracy_metrics.overall_accuracy == 100, name
