"""The plot: bars of what each contender wrote a second, and of each ratio against its target.

Plain SVG with colours that are readable on white and on black, and no background of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.report import told
from benchmarks.rounds import Figure

_INK = "#808890"
_OURS = "#2f8f6b"
_THEIRS = "#7f8fb0"
_MISSED = "#c8553d"

_WIDTH = 800
_LABELS = 320
_BAR = 20
_GAP = 8
_TITLE = 34
_BARS = _WIDTH - _LABELS - 150


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; lengths are relative to the longest of its panel."""

    label: str
    value: float
    unit: str = ""
    colour: str = _THEIRS
    #: A mark at this value.
    target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars that share a scale."""

    title: str
    bars: Sequence[Bar]


def svg_of(rates: Mapping[str, float], figures: Sequence[Figure]) -> str:
    """The whole plot: rates by contender (ours is "product"), and how far each target is met."""
    panels = []
    if rates:
        bars = [
            Bar(
                label=name,
                value=rate,
                unit="/s",
                colour=_OURS if name == "product" else _THEIRS,
            )
            for name, rate in sorted(rates.items(), key=lambda pair: -pair[1])
        ]
        panels.append(Panel(title="vectors a second", bars=bars))
    judged = [figure for figure in figures if figure.way and figure.value is not None]
    if judged:
        panels.append(
            Panel(
                title="how far each target is met (the mark is the target; longer is better)",
                bars=[_attainment(figure) for figure in judged],
            )
        )
    return draw(panels)


#: Beyond, a bar says no more by its length.
_MOST = 2.0


def _attainment(figure: Figure) -> Bar:
    assert figure.value is not None and figure.bound is not None
    good, bad = figure.value, figure.bound
    if figure.way == "<=":
        good, bad = bad, good
    met = _MOST if bad <= 0 else min(_MOST, good / bad)
    sign = "≥" if figure.way == ">=" else "≤"
    return Bar(
        label=f"{figure.line}: {figure.name}",
        value=max(met, 0.0),
        unit=f"{told(figure.value, figure.unit)} ({sign} {told(figure.bound, '')})",
        colour=_MISSED if figure.verdict == "missed" else _OURS,
        target=1.0,
    )


def draw(panels: Sequence[Panel]) -> str:
    """Panels below each other, as one SVG document."""
    parts: list[str] = []
    top = 10
    for panel in panels:
        top = _draw_panel(parts, panel, top) + 18
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" '
        f'height="{top}" font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _draw_panel(parts: list[str], panel: Panel, top: int) -> int:
    parts.append(
        f'<text x="10" y="{top + 16}" font-size="14" font-weight="600">{escape(panel.title)}</text>'
    )
    top += _TITLE
    longest = max((max(bar.value, bar.target or 0.0) for bar in panel.bars), default=0.0) or 1.0
    for bar in panel.bars:
        length = _BARS * bar.value / longest
        middle = top + _BAR * 0.7
        label = bar.label if len(bar.label) <= 46 else bar.label[:45] + "…"
        shown = bar.unit if bar.target is not None else told(bar.value, bar.unit)
        parts.append(
            f'<text x="{_LABELS - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>'
        )
        parts.append(
            f'<rect x="{_LABELS}" y="{top}" width="{max(length, 1):.1f}" height="{_BAR}" rx="3" '
            f'fill="{bar.colour}"/>'
        )
        if bar.target is not None:
            at = _LABELS + _BARS * bar.target / longest
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 3}" y2="{top + _BAR + 3}" '
                f'stroke="{_INK}" stroke-width="2"/>'
            )
        after = _LABELS + max(length, _BARS * (bar.target or 0.0) / longest) + 6
        parts.append(f'<text x="{after:.1f}" y="{middle:.0f}">{escape(shown)}</text>')
        top += _BAR + _GAP
    return top
