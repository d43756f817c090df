"""The day's money: whether anything may still be bought, for whom, and who pays for what.

A payer is whoever asks for a text: a project, or the holder of a key. The amounts are counted by
whoever is given as `Spending`; this file only decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

#: Why texts wait for another day.
USED_UP = "the day's ENRICH_MAX_COST_PER_DAY is used up"


def share_used_up(payer: str) -> str:
    """Why one payer's texts wait for another day while the others' do not."""
    return (
        f"project {payer} has used its share of the day's ENRICH_MAX_COST_PER_DAY: it goes on "
        "after midnight UTC, or once ENRICH_MAX_PROJECT_SHARE is raised"
    )


class Spending(Protocol):
    """What was spent since midnight UTC."""

    def today_usd(self) -> float: ...
    def over_share(self, payers: Collection[str], most_usd: float) -> set[str]:
        """Those that have spent `most_usd` or more; none while there is only one payer."""
        ...


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be spent a day, by all and by each."""

    spending: Spending
    #: US dollars a day; 0 has no limit.
    usd_per_day: float
    #: The part of it that one payer may use while there are several; 1 has no limit.
    share: float

    def used_up(self) -> bool:
        return bool(self.usd_per_day) and self.spending.today_usd() >= self.usd_per_day

    def over_share(self, payers: Collection[str]) -> set[str]:
        """Those of the payers that may spend no more today."""
        if not self.usd_per_day or self.share == 1:
            return set()
        return self.spending.over_share(payers, self.usd_per_day * self.share)


class Usage(Protocol):
    """Where whoever asks wants it counted what was used."""

    def count(
        self, *, micro_usd: int = 0, paid_by: Mapping[str, int] | None = None, **amounts: int
    ) -> None:
        """Add amounts (api_requests, api_inputs, api_tokens, …).

        Args:
            micro_usd: money, in millionths of a dollar.
            paid_by: of which each payer pays.
        """
        ...


class Bill:
    """A `Meter` that puts the price to the tokens and shares it out among the payers."""

    def __init__(self, usage: Usage, usd_per_million_tokens: float) -> None:
        self._usage = usage
        self._price = usd_per_million_tokens
        #: Bytes of text by payer.
        self._parts: Counter[str] = Counter()
        #: What was counted so far.
        self.counted: Counter[str] = Counter()

    def charge(self, texts: Iterable[tuple[str, str]]) -> None:
        """Let these payers, each beside a text of its own, pay for what is counted from now on."""
        self._parts = Counter()
        for payer, text in texts:
            self._parts[payer] += len(text.encode(errors="replace"))

    def count(self, **amounts: int) -> None:
        # A dollar a million tokens is a millionth of a dollar a token.
        micro_usd = round(amounts.get("api_tokens", 0) * self._price)
        self.counted.update(amounts)
        self.counted["micro_usd"] += micro_usd
        self._usage.count(micro_usd=micro_usd, paid_by=split(micro_usd, self._parts), **amounts)


def split(micro_usd: int, parts: Mapping[str, int]) -> dict[str, int]:
    """An amount in proportion to `parts`; the largest name has what is left over."""
    whole = sum(parts.values())
    if not micro_usd or not whole:
        return {}
    paid = {payer: micro_usd * part // whole for payer, part in parts.items()}
    paid[max(paid)] += micro_usd - sum(paid.values())
    return paid
