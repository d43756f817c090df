"""The consumers of Kafka: whether somebody has to do something, and their counts in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from enrich.ledger.latency import BOUNDS, Latency
from enrich.ledger.realtime_summary import ConsumerReport, PartitionReport, RealtimeSummary
from enrich.status.durations import span
from enrich.status.reasons import CHECK, QUIET_SECONDS, Reason, Word, quoted

CODES = (
    "no_consumer", "consumer_paused", "consumer_in_trouble", "consumer_stuck", "consumer_leaves",
)  # fmt: skip

#: So few logs that were left lately tell nothing.
FEW_LEFT = 10

_START = "start one with `python -m enrich consume`"

#: Outcomes as people read them, in the order in which they are told.
NAMES = {
    "embedded": "embedded",
    "duplicate": "duplicate",
    "cached": "cached",
    "reused": "reused",
    "already_vectorized": "already vectorized",
    "left": "left to the backfill",
    "failed": "failed",
    "poison": "poison",
    "excluded": "excluded",
    "other_level": "of other levels",
}


def reasons(summaries: Iterable[RealtimeSummary], *, paused: bool = False) -> list[Reason]:
    """What is wrong with the groups.

    Args:
        paused: by an operator, so that a pause is on purpose.
    """
    found: list[Reason] = []
    for group in summaries:
        found += _nobody(group)
        found += [] if paused else _paused(group)
        found += _in_trouble(group)
        found += _standing(group)
        found += _leaves(group)
    return found


def standing_seconds(group: RealtimeSummary, partition: PartitionReport) -> float:
    """For how long a partition with messages left has not moved, though its consumer lives and is
    not paused; 0 for any other."""
    if not partition.held or not partition.lag:
        return 0.0
    consumer = next(each for each in group.consumers if each.name == partition.consumer)
    # The marker that ends a transaction has an offset, and is no message: nobody can read it.
    if consumer.doing == "paused" or (consumer.doing == "waiting" and partition.lag == 1):
        return 0.0
    return max(0.0, (group.read_at - partition.moved_at).total_seconds())


def _nobody(group: RealtimeSummary) -> list[Reason]:
    if group.consumers_alive or not (group.lag or group.consumers):
        return []
    sentence = f"no consumer of group {quoted(group.group)} is alive"
    if group.consumers:
        last = max(group.consumers, key=lambda consumer: consumer.seen_at)
        ago = span((group.read_at - last.seen_at).total_seconds())
        sentence += (
            f"; {quoted(last.name)} has ended {ago} ago: {quoted(last.why)}"
            if last.doing == "ended"
            else f"; {quoted(last.name)} was last heard of {ago} ago"
        )
    if group.lag:
        sentence += f"; {messages(group.lag)} waited when the topic was last seen"
    return [
        Reason(
            code="no_consumer",
            word=Word.DEGRADED,
            sentence=sentence,
            remedy=_START,
            exit_status=1,
        )
    ]


def _paused(group: RealtimeSummary) -> list[Reason]:
    standing: dict[str, list[ConsumerReport]] = {}
    for consumer in group.consumers:
        if consumer.alive and consumer.doing == "paused":
            standing.setdefault(consumer.why, []).append(consumer)
    found = []
    for why, consumers in standing.items():
        since = min(consumer.doing_since for consumer in consumers)
        seconds = (group.read_at - since).total_seconds()
        if seconds <= QUIET_SECONDS:
            continue
        who = "a consumer" if len(consumers) == 1 else f"{len(consumers):,} consumers"
        have = "has" if len(consumers) == 1 else "have"
        found.append(
            Reason(
                code="consumer_paused",
                word=Word.DEGRADED,
                sentence=f"{who} of group {quoted(group.group)} {have} been paused for "
                f"{span(seconds)}: {quoted(why) or 'no reason was given'}",
                remedy=CHECK,
                exit_status=1,
            )
        )
    return found


def _in_trouble(group: RealtimeSummary) -> list[Reason]:
    """What consumers that are not paused complain of, such as brokers that do not answer."""
    told: dict[str, int] = {}
    for consumer in group.consumers:
        if consumer.alive and consumer.doing != "paused" and consumer.why:
            told[consumer.why] = told.get(consumer.why, 0) + 1
    return [
        Reason(
            code="consumer_in_trouble",
            word=Word.DEGRADED,
            sentence=f"{count:,} consumer{'' if count == 1 else 's'} of group "
            f"{quoted(group.group)} {'is' if count == 1 else 'are'} in trouble: {quoted(why)}",
            remedy=CHECK,
            exit_status=1,
        )
        for why, count in told.items()
    ]


def _standing(group: RealtimeSummary) -> list[Reason]:
    still = {
        place_of(partition): (seconds, partition.lag or 0)
        for partition in group.partitions
        if (seconds := standing_seconds(group, partition)) > QUIET_SECONDS
    }
    if not still:
        return []
    first = max(still, key=lambda place: still[place])
    more = f" and {len(still) - 1:,} more" if len(still) > 1 else ""
    waiting = sum(lag for _, lag in still.values())
    return [
        Reason(
            code="consumer_stuck",
            word=Word.DEGRADED,
            sentence=f"the consumers of group {quoted(group.group)} have not moved for "
            f"{span(still[first][0])} in {first}{more}, with {messages(waiting)} left",
            remedy="see their log",
            exit_status=1,
        )
    ]


def _leaves(group: RealtimeSummary) -> list[Reason]:
    """Where most logs are left, real time serves nobody."""
    if group.recent_left <= max(FEW_LEFT, group.recent_vectors):
        return []
    why = next(iter(group.left_reasons), "")
    return [
        Reason(
            code="consumer_leaves",
            word=Word.DEGRADED,
            sentence=f"the consumers of group {quoted(group.group)} left {group.recent_left:,} "
            f"logs to the backfill in the last {span(group.recent_seconds)}, and gave "
            f"{group.recent_vectors:,} a vector" + (f": {quoted(why)}" if why else ""),
            remedy='see "What to do when" in docs/realtime.md',
            exit_status=1,
        )
    ]


# -- in words


def place_of(partition: PartitionReport) -> str:
    return f"{partition.topic}/{partition.number}"


def messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def outcomes(group: RealtimeSummary) -> list[tuple[str, int]]:
    """What became of the messages: those outcomes that there are."""
    return [(name, group.outcomes[key]) for key, name in NAMES.items() if group.outcomes.get(key)]


def seconds(value: float | None) -> str:
    """A latency: `4.8 s`; beyond the last bound, only that."""
    if value is None:
        return "–"
    return f"over {span(BOUNDS[-1])}" if value >= BOUNDS[-1] else span(value)


def percentiles(latency: Latency) -> str:
    return f"p50 {seconds(latency.p50)}, p99 {seconds(latency.p99)}"


def consumer_line(group: RealtimeSummary, consumer: ConsumerReport) -> str:
    """A consumer, and what it is doing."""
    if not consumer.alive:
        ago = span((group.read_at - consumer.seen_at).total_seconds())
        if consumer.doing == "ended":
            return f"{consumer.name}: ended {ago} ago: {consumer.why}"
        return f"{consumer.name}: silent, last heard of {ago} ago"
    since = span(max(0.0, (group.read_at - consumer.doing_since).total_seconds()))
    why = f": {consumer.why}" if consumer.why else ""
    has = sum(one.held and one.consumer == consumer.name for one in group.partitions)
    return (
        f"{consumer.name}: {consumer.doing} for {since}{why}; {has:,} "
        f"partition{'' if has == 1 else 's'}"
    )


def furthest_behind(group: RealtimeSummary) -> Sequence[PartitionReport]:
    """The partitions, those with most left first."""
    return sorted(
        group.current_partitions, key=lambda one: (-(one.lag or 0), one.topic, one.number)
    )


def counted(reasons: Mapping[str, int]) -> str:
    """`12 not_json, 3 no_id`"""
    return ", ".join(f"{count:,} {name}" for name, count in reasons.items())
