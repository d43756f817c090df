"""The last runs as a chart: outcomes stacked in a bar for each, the rate as a line across.

An SVG that is stretched to the page's width, so all words stand beside it, as text of the page. It
is for eyes: the same numbers are in a table for everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from enrich.models import Outcome, RunRecord

WIDTH, HEIGHT = 1000, 200

#: From the bottom of a bar to its top: what was worked for first, what went wrong last.
STACKED = (
    Outcome.EMBEDDED, Outcome.DUPLICATE, Outcome.CACHED, Outcome.REUSED,
    Outcome.ALREADY_VECTORIZED, Outcome.GONE, Outcome.FAILED, Outcome.DEFERRED,
)  # fmt: skip

#: What can be seen at all.
LEAST_HEIGHT = 1.5


@dataclass(frozen=True)
class Chart:
    """The drawing, and what is written at its edges."""

    svg: str
    #: Logs at the top of the left axis, and vectors a second at the top of the right one.
    most_logs: int
    most_rate: float
    #: Outcomes that occur, for the legend.
    outcomes: list[Outcome]


def chart_of(runs: Sequence[RunRecord], address: Callable[[str], str]) -> Chart | None:
    """Draw runs, newest first as everywhere, from left (the oldest) to right; None without any.

    Args:
        address: of a run's own page, by its id.
    """
    if not runs:
        return None
    ordered = list(reversed(runs))
    most_logs = _round_up(max(run.settled for run in ordered))
    most_rate = float(_round_up(max(run.rate_per_second for run in ordered)))
    # A few bars must not be as broad as the page.
    slot = WIDTH / max(len(ordered), 12)
    first = WIDTH - slot * len(ordered)
    bars, points = [], []
    for place, run in enumerate(ordered):
        left = first + place * slot
        bars.append(_bar(run, left + slot * 0.14, slot * 0.72, most_logs, address(run.run_id)))
        if run.vectors_written:
            points.append((left + slot / 2, HEIGHT * (1 - run.rate_per_second / most_rate)))
    grid = "".join(
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
        for y in (0.5, HEIGHT / 2, HEIGHT - 0.5)
    )
    return Chart(
        svg=(
            f'<svg class="enr-chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" '
            f'aria-hidden="true">{grid}{"".join(bars)}{_line(points)}</svg>'
        ),
        most_logs=most_logs,
        most_rate=most_rate,
        outcomes=[o for o in STACKED if any(getattr(run, o.value) for run in ordered)],
    )


def told(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")


def _bar(run: RunRecord, left: float, width: float, most: int, address: str) -> str:
    top = float(HEIGHT)
    pieces = []
    for outcome in STACKED:
        count = int(getattr(run, outcome.value))
        if not count or top <= 0:
            continue
        height = min(top, max(LEAST_HEIGHT, HEIGHT * count / most))
        top -= height
        pieces.append(
            f'<rect class="o-{outcome.value}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}"/>'
        )
    counts = ", ".join(f"{getattr(run, o.value):,} {told(o)}" for o in STACKED if
                       getattr(run, o.value))  # fmt: skip
    title = escape(
        f"Run #{run.number}, {run.state}: {counts or 'nothing yet'}; "
        f"{run.rate_per_second:,.1f} vectors/s"
    )
    # The whole column answers to the pointer, however low the bar.
    hit = f'<rect class="hit" x="{left:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"/>'
    drawn = hit + "".join(pieces)
    return f'<a href="{escape(address)}" tabindex="-1"><title>{title}</title>{drawn}</a>'


def _line(points: Sequence[tuple[float, float]]) -> str:
    if len(points) < 2:
        return ""
    told_points = " ".join(f"{x:.1f},{max(1.0, y):.1f}" for x, y in points)
    return f'<polyline class="rate" points="{told_points}"/>'


def _round_up(value: float) -> int:
    """The next number of one leading digit, or of 1.5 or 2.5 times a power of ten; at least 1."""
    power = 1
    while power * 10 < value:
        power *= 10
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return int(next((step * power for step in steps if step * power >= value), power * 10)) or 1
