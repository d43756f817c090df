"""What an endpoint was found to take: inputs and bytes of a request, bytes of a text.

No protocol tells it, so that it is learned from refusals, once for all workers, and forgotten after
an hour: an endpoint that takes more by then shows it at the cost of a few requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

#: Of a text no more is cut away than down to this for the sake of others: who writes a log whose
#: text has a token in each byte must not shorten all the texts of other projects to nothing.
LEAST_TEXT_BYTES = 500


@dataclass(frozen=True, kw_only=True)
class EndpointLimits:
    """0 where nothing was found."""

    inputs: int = 0
    request_bytes: int = 0
    text_bytes: int = 0

    def lowered(self, found: EndpointLimits) -> EndpointLimits:
        """With what was found put in where it is less, or where nothing was known."""
        less = {
            name: value
            for name, value in asdict(found).items()
            if value and value < (getattr(self, name) or value + 1)
        }
        return replace(self, **less)


class LimitStore(Protocol):
    """Where what was found is kept."""

    def read(self) -> EndpointLimits: ...
    def lower(self, found: EndpointLimits) -> None: ...


class OwnLimits:
    """Kept by one process, for itself."""

    def __init__(self) -> None:
        self._limits = EndpointLimits()

    def read(self) -> EndpointLimits:
        return self._limits

    def lower(self, found: EndpointLimits) -> None:
        self._limits = self._limits.lowered(found)


class SharedLimits:
    """Kept by the ledger for all workers, under the name of the vector space."""

    def __init__(
        self,
        space: str,
        read: Callable[[], Mapping[str, Mapping[str, int]]],
        write: Callable[[str, Mapping[str, int]], None],
    ) -> None:
        """
        Args:
            read: gives what is known of all spaces.
            write: takes a space and all that is known of it now.
        """
        self._space = space
        self._read = read
        self._write = write

    def read(self) -> EndpointLimits:
        return limits_of(self._read().get(self._space, {}))

    def lower(self, found: EndpointLimits) -> None:
        # Two workers may overwrite each other; what gets lost is found once more.
        known = self.read()
        lowered = known.lowered(found)
        if lowered != known:
            self._write(self._space, asdict(lowered))


def limits_of(fields: Mapping[str, int]) -> EndpointLimits:
    """Fields of any version of this program; unknown ones count for nothing."""
    names = asdict(EndpointLimits())
    return EndpointLimits(**{name: int(fields.get(name) or 0) for name in names})
