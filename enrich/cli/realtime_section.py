"""What `status` prints of a group of consumers of Kafka."""

from __future__ import annotations

from rich.console import Console

from enrich.cli import screen
from enrich.cli.screen import plural
from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.status import realtime

#: Partitions and consumers shown; `--json` has all.
MAX_PARTITIONS = 12
MAX_CONSUMERS = 8


def show(console: Console, group: RealtimeSummary) -> None:
    """Print one group."""
    screen.heading(console, f"Real time: consumers of group {group.group}")
    lag = "not known" if group.lag is None else realtime.messages(group.lag)
    alive = f"{plural(group.consumers_alive, 'consumer')} alive; lag {lag}"
    if group.last_batch_at is not None:
        ago = (group.read_at - group.last_batch_at).total_seconds()
        alive += f"; last batch {screen.span(max(0.0, ago))} ago"
    if group.consumers_alive:
        screen.facts(console, alive)
    else:
        screen.line(console, "warn", f"{alive}: `python -m enrich consume` starts a consumer")
    _print_latency(console, group)
    for consumer in group.consumers[:MAX_CONSUMERS]:
        at_work = consumer.alive and consumer.doing != "paused" and not consumer.why
        told = realtime.consumer_line(group, consumer)
        if at_work:
            screen.facts(console, told)
        else:
            screen.line(console, "warn", told)
    if len(group.consumers) > MAX_CONSUMERS:
        rest = len(group.consumers) - MAX_CONSUMERS
        screen.facts(console, f"{rest:,} more consumers: --json names them")
    _print_partitions(console, group)
    _print_counts(console, group)


def _print_latency(console: Console, group: RealtimeSummary) -> None:
    if not group.latency.logs:
        return
    told = []
    if group.recent_latency.logs:
        lately = screen.span(group.recent_seconds)
        told.append(f"{realtime.percentiles(group.recent_latency)} in the last {lately}")
    if group.latency.logs > group.recent_latency.logs:
        told.append(f"{realtime.percentiles(group.latency)} since the beginning")
    screen.facts(console, f"from log to vector: {'; '.join(told)}")


def _print_counts(console: Console, group: RealtimeSummary) -> None:
    since = f" since {screen.clock(group.since)} (UTC)" if group.since else ""
    counted = f"{plural(group.messages, 'message')} in {plural(group.batches, 'batch')}{since}"
    told = ", ".join(f"{count:,} {name}" for name, count in realtime.outcomes(group))
    screen.facts(console, f"{counted}: {told}" if told else counted)
    usage = group.usage
    if usage["api_requests"]:
        slowed = f"; slowed down {plural(usage['rate_limited'], 'time')} by rate limits"
        screen.facts(
            console,
            f"{plural(usage['api_requests'], 'API request')} with "
            f"{plural(usage['api_inputs'], 'text')}, {screen.dollars(group.estimated_cost_usd)}"
            + (slowed if usage["rate_limited"] else ""),
        )
    for sentence, count in group.left_reasons.items():
        screen.facts(console, f"left to the backfill, {plural(count, 'log')}: {sentence}")
    if group.poison_codes:
        screen.facts(console, f"poison: {realtime.counted(group.poison_codes)}")


def _print_partitions(console: Console, group: RealtimeSummary) -> None:
    partitions = realtime.furthest_behind(group)
    if not partitions:
        return
    rows = [
        (
            realtime.place_of(one),
            *("?" if value is None else value for value in (one.committed, one.end, one.lag)),
            one.consumer if one.held else "nobody",
        )
        for one in partitions[:MAX_PARTITIONS]
    ]
    columns = ("partition", "committed", "end", "lag", "consumer")
    if len(partitions) > 1:
        rows.append((f"all {len(partitions)}", "", "", "?" if group.lag is None else group.lag, ""))
    table = screen.fitted(
        console, columns, rows, numbers=("committed", "end", "lag"),
        drops=("committed", "end", "consumer"), shortens="partition",
    )  # fmt: skip
    if len(partitions) > 1:
        table.rows[-2].end_section = True
        table.rows[-1].style = "bold"
    screen.put(console, table)
    if len(partitions) > MAX_PARTITIONS:
        rest = len(partitions) - MAX_PARTITIONS
        screen.facts(console, f"{plural(rest, 'more partition')}: --json has them")
