"""What `check` says of Kafka, without Kafka: its answers are given."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from enrich.cli.checks import kafka
from enrich.cli.checks.findings import Findings
from enrich.errors import AccessRefused, EnrichError, ServerUnavailable
from enrich.realtime import inspection
from enrich.realtime.broker import CLIENT_ID
from enrich.realtime.inspection import Cluster, GroupState, Offsets, Topic
from enrich.settings import load_settings

TOPIC = Topic(name="application-logs", partitions=[0, 1], may_read=True)
OURS = GroupState(state="stable", members=[(CLIENT_ID, 2)], may_read=True)
READ = [
    Offsets(topic="application-logs", number=0, committed=10, first=0, end=10),
    Offsets(topic="application-logs", number=1, committed=5, first=0, end=1_005),
]


class Answers:
    """As much of Kafka as is looked at; an error is raised."""

    def __init__(self, **changed: Any) -> None:
        self.given: dict[str, Any] = {
            "cluster": Cluster(id="c1", brokers=3), "topics": {"application-logs": TOPIC},
            "group": OURS, "offsets": READ, **changed,
        }  # fmt: skip

    def _give(self, name: str) -> Any:
        if isinstance(given := self.given[name], EnrichError):
            raise given
        return given

    def cluster(self) -> Any:
        return self._give("cluster")

    def topic(self, name: str) -> Any:
        given = self._give("topics").get(name)
        if isinstance(given, EnrichError):
            raise given
        return given

    def group(self) -> Any:
        return self._give("group")

    def offsets(self, topics: Any) -> Any:
        return self._give("offsets") if topics else []


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def check(settings: dict[str, Any] | None = None, **changed: Any) -> tuple[str, int]:
        monkeypatch.setattr(inspection, "Inspection", lambda _: Answers(**changed))
        chosen = {"kafka_bootstrap_servers": "127.0.0.1:9092", **(settings or {})}
        out = StringIO()
        findings = Findings(Console(file=out, width=400))
        with findings.failing_here():
            kafka.look_at(load_settings(openai_api_key="k", **chosen), findings)
        return out.getvalue(), findings.status

    return check


def test_where_all_is_well_it_says_so(checked: Any) -> None:
    text, status = checked()
    assert status == 0 and "✗" not in text and "!" not in text
    for told in (
        "3 brokers of cluster c1 at 127.0.0.1:9092, without TLS",
        "topic application-logs: 2 partitions, which may be read",
        "group ai-enrichment-consumer is stable, with 1 consumer",
        "1,000 messages left in 2 partitions: application-logs/1 1,000",
    ):
        assert told in text, told


SASL = {
    "kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN",
    "kafka_sasl_username": "enrich", "kafka_sasl_password": "hidden",
}  # fmt: skip
REFUSED = AccessRefused("Kafka at k:1 refused the login: check KAFKA_SASL_PASSWORD")


@pytest.mark.parametrize(
    ("changed", "settings", "mark", "says", "status"),
    [
        ({"cluster": REFUSED}, {}, "✗", "check KAFKA_SASL_PASSWORD", 3),
        ({"cluster": ServerUnavailable("Kafka cannot be reached")}, {}, "✗", "reached", 3),
        ({}, SASL, "✓", "over TLS, logged in as enrich (PLAIN)", 0),
        (
            {},
            {**SASL, "kafka_security_protocol": "SASL_PLAINTEXT"},
            "!", "login and logs travel in clear: KAFKA_SECURITY_PROTOCOL=SASL_SSL", 0,
        ),
        ({}, {"kafka_bootstrap_servers": "k.example:9092"}, "!", "in between can read the logs", 0),
        (
            {},
            {"kafka_extra_config": '{"enable.ssl.certificate.verification": false}'},
            "!", "KAFKA_EXTRA_CONFIG turns off", 0,
        ),
        ({"topics": {}}, {}, "✗", "topic application-logs is not there: create it", 1),
        (
            {"topics": {"application-logs": AccessRefused("may not read the topic")}},
            {}, "✗", "topic application-logs: may not read the topic, or correct KAFKA_TOPIC", 1,
        ),
        (
            {"topics": {"application-logs": Topic(name="x", partitions=[0], may_read=False)}},
            SASL, "✗", "may not be read: give KAFKA_SASL_USERNAME enrich Read", 1,
        ),
        (
            {"group": AccessRefused("may not use the group")},
            {}, "✗", "group ai-enrichment-consumer: may not use the group", 1,
        ),
        (
            {"group": GroupState(state="stable", members=[], may_read=False)},
            {}, "✗", "may not be used: give this client Read on it", 1,
        ),
        (
            {"group": GroupState(state="dead", members=[], may_read=True)},
            {}, "!", "has no consumer now: `python -m enrich consume` starts one", 0,
        ),
        (
            {"group": GroupState(state="stable", members=[("spark", 2)], may_read=True)},
            {}, "✗", "another program consumes as group ai-enrichment-consumer (spark)", 1,
        ),
        (
            {"group": GroupState(state="stable", members=[(CLIENT_ID, 1)] * 3, may_read=True)},
            {}, "!", "1 consumer of group ai-enrichment-consumer has nothing to do", 0,
        ),
        (
            {"offsets": [Offsets(topic="t", number=0, committed=None, first=3, end=9)]},
            {}, "✓", "1 partition without an offset begins at the earliest message", 0,
        ),
        (
            {"offsets": [Offsets(topic="t", number=0, committed=4, first=9, end=9)]},
            {}, "!", "Kafka has removed 5 messages before they were read, in t/0", 0,
        ),
        ({"offsets": ServerUnavailable("Kafka is away")}, {}, "✗", "Kafka is away", 3),
    ],
)  # fmt: skip
def test_each_finding_has_its_mark_and_names_what_to_change(
    checked: Any, changed: Any, settings: Any, mark: str, says: str, status: int
) -> None:
    text, seen = checked(settings, **changed)
    (line,) = (line for line in text.splitlines() if says in line)
    assert line.strip().startswith(mark), line
    assert seen == status
    assert "hidden" not in text


def test_one_topic_in_trouble_hides_no_other(checked: Any) -> None:
    text, status = checked(
        {"kafka_topic": "gone,application-logs"}, topics={"application-logs": TOPIC}
    )
    assert "topic gone is not there" in text and "application-logs: 2 partitions" in text
    assert status == 1


def test_lag_is_counted_from_the_first_message_that_is_still_there() -> None:
    def lag(committed: int | None, first: int, end: int) -> tuple[int, int]:
        one = Offsets(topic="t", number=0, committed=committed, first=first, end=end)
        return one.lag, one.removed

    assert lag(None, 3, 9) == (6, 0)
    assert lag(4, 3, 9) == (5, 0)
    assert lag(2, 3, 9) == (6, 1)
    assert lag(12, 3, 9) == (0, 0)
