"""What masking and normalising have in common: kinds that are chosen by name, each with rules that
replace what they find in a text. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

ALL = "all"

Rule = Callable[[str], str]


class Replacing:
    """Carries out the rules of the chosen kinds, in the order of the kinds."""

    def __init__(self, chosen: Iterable[str], rules: Mapping[str, Sequence[Rule]]) -> None:
        self._rules = [rule for kind in chosen for rule in rules[kind]]

    def __call__(self, text: str) -> str:
        for rule in self._rules:
            text = rule(text)
        return text


def chosen_of(named: Iterable[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Those of the kinds that are named, in their order, each once; `all` stands for every one.

    Raises:
        ValueError: a kind is not known; the text names those that are, not the wrong one.
    """
    wanted = {kind.lower() for kind in named}
    if not wanted <= {*kinds, ALL}:
        raise ValueError(f"must be {ALL}, or some of {', '.join(sorted(kinds))}")
    return tuple(kind for kind in kinds if kind in wanted or ALL in wanted)
