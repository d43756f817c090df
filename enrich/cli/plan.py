"""`plan`: what the backlog will cost before anything is bought, and what that rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from enrich import wiring
from enrich.cli import screen
from enrich.cli.failures import no_such
from enrich.cli.screen import dollars, plural, span
from enrich.planning.parts import Tell
from enrich.planning.plan import Plan
from enrich.settings import Settings
from enrich.status.failed_logs import matches

#: What is over sooner needs no line of its own; and between two lines where there is no terminal.
QUIET_SECONDS, LINE_SECONDS = 2.0, 5.0

_BOUNDS = {
    "working": "asking and writing at the measured rate",
    "requests_per_minute": "the API's limit of requests",
    "tokens_per_minute": "the API's limit of tokens",
    "write_pace": "ENRICH_WRITE_PACE",
    "cost_per_day": "ENRICH_MAX_COST_PER_DAY",
    "logs_per_run": "ENRICH_MAX_LOGS_PER_RUN",
}


def show(settings: Settings, index: str | None, days: float | None, *, as_json: bool) -> int:
    """Print the plan. The exit status."""
    planner = wiring.build_planner(settings, days)
    backlog = planner.backlog(lambda name: matches(name, index))
    if index and not backlog.counts and not backlog.left_out:
        store = wiring.build_store(settings)
        if not store.stats.matching(index):
            screen.line(screen.err(), "bad", no_such(store, index))
            return 2
    with telling(screen.err()) as tell:
        made = planner.plan(backlog, tell, index=index or "", days=days)
    if as_json:
        screen.print_json(made.model_dump(mode="json"))
    else:
        print_plan(screen.out(), made, settings, planner.parts.ledger.confirmed.left_usd())
    return 0


def print_plan(
    console: Console, made: Plan, settings: Settings, confirmed_usd: float = 0.0
) -> None:
    """The plan in words, a fact a line. Args: confirmed_usd: what runs may spend already."""
    counted, saved = made.counted, made.saved
    screen.skipped(console, made.left_out)
    if not counted.logs:
        where = made.index or settings.index_expression
        screen.line(console, "ok", f"nothing waits in {where}: a run would cost nothing")
        return
    screen.heading(console, sentence(made))
    rows = [
        ("logs that wait", f"{counted.logs:,}", f"in {plural(counted.indices, 'index')}"),
        ("distinct texts", f"{counted.distinct_texts:,}", _exactness(made)),
        ("in Redis already", f"{saved.cache:,}", "texts"),
        ("in other logs already", f"{saved.reuse:,}", "texts"),
        ("texts to be paid for", f"{made.sent.texts:,}", _size(made.sent.bytes)),
        ("tokens", f"{made.sent.tokens:,}", _of_tokens(made)),
        *_of_money(made),
        ("time", span(made.time.seconds), _of_time(made)),
        *_of_disk(made),
    ]
    table = screen.table("", "", "", numbers=(), wraps=())
    table.show_header = False
    table.columns[1].justify = "right"
    table.columns[2].no_wrap, table.columns[2].overflow = False, "fold"
    for row in rows:
        table.add_row(*screen.cells(*row))
    screen.put(console, table)
    console.print()
    for saying in _savings(made):
        screen.facts(console, saying)
    node = made.disk.fullest_node
    if node and node.above_high_watermark:
        screen.line(
            console,
            "warn",
            f"{node.name} would be above its high watermark ({node.high_watermark}), where a run "
            "halts: free or add disk first",
        )
    for saying in made.assumptions:
        screen.line(console, "warn", f"assumed: {saying}")
    above = settings.enrich_confirm_above_usd
    if above and (made.cost.usd or 0) > max(above, confirmed_usd):
        screen.line(
            console,
            "warn",
            f"that is more than ENRICH_CONFIRM_ABOVE_USD ({dollars(above)}): it waits for "
            "`python -m enrich confirm`",
        )


def sentence(made: Plan) -> str:
    """The sum in a line."""
    usd = made.cost.usd
    money = "a price that is not known" if usd is None else f"about {dollars(usd)}"
    texts = plural(made.sent.texts, "text")
    return (
        f"{plural(made.counted.logs, 'log')}, {texts} to be paid for, {money}, "
        f"about {span(made.time.seconds)}"
    )


def _exactness(made: Plan) -> str:
    if not made.counted.error:
        return "exact: every log was read"
    return f"±{made.counted.error:.1%}" + (
        ", counted by OpenSearch" if made.counted.method == "cardinality" else ""
    )


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def _of_tokens(made: Plan) -> str:
    sent = made.sent
    about = f"±{sent.error:.0%}, " if sent.error >= 0.005 else ""
    if sent.basis == "assumed":
        return f"{about}{sent.per_byte:g} a byte, assumed"
    return f"{about}{sent.per_byte:.3f} a byte, measured on {plural(sent.texts_measured, 'text')}"


def _of_money(made: Plan) -> list[tuple[str, str, str]]:
    cost = made.cost
    if cost.usd is None or cost.batch_usd is None:
        return [("cost", "?", "set ENRICH_PRICE_PER_MILLION_TOKENS")]
    price = f"{made.model} at {dollars(cost.price_per_million_tokens or 0)} a million tokens"
    return [
        ("cost", dollars(cost.usd), price),
        ("by a batch service", dollars(cost.batch_usd), "at half the price, within 24 hours"),
    ]


def _of_time(made: Plan) -> str:
    took = made.time
    if took.binding != "working":
        return f"bound by {_BOUNDS.get(took.binding, took.binding)}"
    how = "assumed"
    if took.basis == "measured":
        how = f"measured on {plural(took.runs_measured, 'run')}"
    return f"{took.logs_per_second:,.0f} logs a second, {how}"


def _of_disk(made: Plan) -> Iterator[tuple[str, str, str]]:
    disk = made.disk
    if disk.bytes is not None:
        yield ("disk of all nodes", _size(disk.bytes), f"{disk.bytes_per_vector:,} bytes a vector")
    else:
        yield ("disk of a copy", _size(disk.bytes_per_vector * made.counted.logs), disk.unseen)
    if node := disk.fullest_node:
        mark = f", high watermark {node.high_watermark}" if node.high_watermark else ""
        yield (
            "of the fullest node",
            _size(node.added),
            f"{node.name}: {node.share_before:.1%} → {node.share_after:.1%}{mark}",
        )


def _savings(made: Plan) -> Iterator[str]:
    cost, saved = made.cost, made.saved
    if cost.usd is not None and (cost.usd_without_savings or 0) > cost.usd:
        yield (
            f"each log sent by itself would cost {dollars(cost.usd_without_savings or 0)}: "
            f"{saved.repeats:,} logs share a text with another, {saved.cache:,} texts are in "
            f"Redis, {saved.reuse:,} in other logs"
        )
    if saved.masking is not None:
        yield f"masking and normalising leave {saved.masking:,} texts fewer"
    spared = saved.normalize_looked_at - saved.normalize_left
    if spared:
        yield (
            f"ENRICH_NORMALIZE=all would leave {saved.normalize_left:,} of "
            f"{saved.normalize_looked_at:,} distinct texts that were looked at (docs/text.md)"
        )
    if made.counted.unusable:
        yield (
            f"{plural(made.counted.unusable, 'log')} without a usable text: a run marks them failed"
        )


@contextmanager
def telling(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """Gives a function that shows how far a plan is, once it takes longer than two seconds."""
    began = last = clock()
    if not console.is_terminal:

        def write(what: str, done: int, total: int) -> None:
            nonlocal last
            now = clock()
            if now - began < QUIET_SECONDS or now - last < LINE_SECONDS:
                return
            last = now
            screen.facts(console, f"{what}: {_far(done, total, now - began)}")

        yield write
        return
    with Bar(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[far]}", markup=False),
        console=console,
        transient=True,
        disable=False,
    ) as bar:
        task = bar.add_task("", total=None, far="", visible=False)

        def draw(what: str, done: int, total: int) -> None:
            now = clock()
            bar.update(
                task,
                description=what,
                completed=done,
                total=total or None,
                far=_far(done, total, now - began),
                visible=now - began >= QUIET_SECONDS,
            )

        yield draw


def _far(done: int, total: int, seconds: float) -> str:
    if not total:
        return span(seconds)
    return f"{done:,} of {total:,}, {span(seconds)}"
