"""What the ledger's moves answer, and what one page of a run hands to the next."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class RunState(NamedTuple):
    """The state of a run, as every move that may end a wait reports it."""

    open_chunks: int
    #: The page that is read next.
    page: int
    scan_done: bool
    #: `running`, `finished`, `halted` or `abandoned`; "" for a run that Redis does not know.
    name: str

    @property
    def known(self) -> bool:
        return self.name != ""

    @property
    def running(self) -> bool:
        return self.name == "running"

    @property
    def over(self) -> bool:
        return self.scan_done and self.open_chunks == 0


class Opened(NamedTuple):
    """Answer of `open`: a new run, or why not and which run is active."""

    verdict: Literal["opened", "active", "paused", "too_soon"]
    run: str
    number: int


class Lease(NamedTuple):
    """Answer of `begin`."""

    #: `busy`: another delivery has the lease; `other`: the run's settings are not the caller's.
    verdict: Literal["go", "busy", "closed", "other"]
    #: Who has the chunk: the caller for `go`, another delivery for `busy`.
    owner: str
    #: For `go`: how many workers were lost with this chunk.
    workers_lost: int = 0
    #: For `busy`: when the other delivery's lease ends at the latest.
    seconds_left: float = 0.0
    #: For `go`: fingerprint of the text that was handled alone when its worker was lost, or "".
    alone: str = ""
    #: For `go`: whether another delivery had it before, and may have written some of it.
    tried: bool = False


@dataclass(frozen=True, kw_only=True)
class ChunkState:
    """A chunk of a run that is not settled."""

    id: str
    #: Documents.
    logs: int
    #: `leased`: a delivery works on it; `waiting`: none does; `deferred`: left to the next run.
    state: Literal["leased", "waiting", "deferred"]
    #: "host/pid" of the process that has the lease; "" if none has.
    owner: str
    #: For how long it has been so, by Redis TIME; 0 if it is not known.
    seconds: float
    workers_lost: int
    #: Why it was deferred; "" if it was not.
    why: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How far a run has searched: what one page hands to the next."""

    #: Indices still to be searched, in turn, each with its cursor (None: from the newest).
    pending: list[tuple[str, list[Any] | None]]
    #: Indices whose documents are written by `update`.
    update_only: list[str]
    #: Indices that cannot be sorted by time.
    unsorted: list[str]
    #: OpenSearch's data nodes.
    nodes: int = 1
    #: Logs left in each pending index, as far as the survey counted them.
    left: dict[str, int] = field(default_factory=dict)
    #: Logs taken since the last turn was over.
    in_turn: int = 0
    #: Pending indices that give fewer hits at once than others, and how many.
    windows: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, stored: bytes | str) -> Scan:
        """What another version of enrich adds or does not know yet is no reason to stop."""
        fields = json.loads(stored)
        return cls(
            pending=[(index, cursor) for index, cursor in fields["pending"]],
            update_only=fields["update_only"],
            unsorted=fields["unsorted"],
            nodes=fields.get("nodes", 1),
            left=fields.get("left", {}),
            in_turn=fields.get("in_turn", 0),
            windows=fields.get("windows", {}),
        )
