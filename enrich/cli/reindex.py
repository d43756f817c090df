"""`reindex`: indices that take no vectors are replaced by copies that do."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.cli.progress import LINE_SECONDS
from enrich.errors import EnrichError
from enrich.log_store.refusals import RightMissing
from enrich.reindexing.progress import Progress
from enrich.reindexing.steps import Reindex
from enrich.settings import Settings

#: What is over sooner needs no line of its own.
QUIET_SECONDS = 2.0


def replace(
    settings: Settings,
    indices: list[str],
    target: str,
    *,
    remove_old: bool,
    dry_run: bool,
    confirmed: Callable[[str], bool],
) -> int:
    """Replace indices one after the other; the exit status.

    Raises EnrichError: one cannot be replaced; those before it were.
    """
    console = screen.out()
    store = wiring.build_store(settings)
    work = Reindex(
        store.connection,
        expression=settings.index_expression,
        dimensions=settings.embedding_dimensions,
        say=lambda mark, text: screen.line(console, mark, text),
        show=progress_lines(console),
    )
    try:
        plans = [work.plan(index, target, remove_old=remove_old) for index in indices]
        for plan in plans:
            if plan.nothing:
                screen.line(console, "ok", plan.nothing)
                continue
            if dry_run:
                screen.heading(console, plan.source.name)
                screen.facts(console, *work.told(plan))
                continue
            if remove_old and not confirmed(
                f"Delete {plan.source.name} once its copy {plan.target} is whole?"
            ):
                return 1
            work.run(plan)
    except RightMissing as error:
        lacking = f" lacks {', '.join(error.rights)}" if error.rights else " lacks a right"
        raise EnrichError(
            f"OPENSEARCH_USER{lacking}: give it the role in deploy/opensearch-role-reindex.json as "
            "well, and run it again"
        ) from None
    return 0


def progress_lines(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Callable[[Progress], None]:
    """Gives a function that writes a line every few seconds, with the rate and the time left."""
    what, began, last, first = "", 0.0, 0.0, 0

    def show(now: Progress) -> None:
        nonlocal what, began, last, first
        moment = clock()
        if now.what != what:
            what, began, first = now.what, moment, now.done
            last = began + QUIET_SECONDS - LINE_SECONDS
        if moment - last < LINE_SECONDS:
            return
        last = moment
        rate = (now.done - first) / max(moment - began, 0.001)
        left = ""
        if rate > 0 and now.total > now.done:
            left = f", {screen.span((now.total - now.done) / rate)} left"
        screen.facts(console, f"{what}: {now.done:,} of {now.total:,} logs, {rate:,.0f}/s{left}")

    return show
