"""What one part of `check` saw and others go by."""

from __future__ import annotations

from dataclasses import dataclass, field

from enrich.log_store import Readiness
from enrich.log_store.coverage import WHOLE, Gaps


@dataclass(kw_only=True)
class Seen:
    """The indices that match, and the backlog in them."""

    indices: list[str] = field(default_factory=list)
    ready: Readiness = field(
        default_factory=lambda: Readiness(skipped={}, update_only=[], lacking={})
    )
    #: Logs that a run would take, and USD it would cost at most; None if unknown.
    pending: int | None = None
    cost: float | None = None
    #: What that number leaves out.
    gaps: Gaps = WHOLE

    @property
    def pending_told(self) -> str:
        """The logs that a run would take, as the number may be said."""
        return self.gaps.at_least(f"{self.pending or 0:,}")
