"""Whether an endpoint may write beside the vectors that logs have: no two spaces under one model.

What was compared is remembered as a whole: endpoint, model, width, what is put before texts or sent
with them, and where the logs are. Anything else than what is remembered is compared again, before a
run buys a vector. A comparison sends the texts of a few stored vectors to the endpoint; the
majority decides, so that one planted vector halts nothing. Where nothing can be compared and there
are vectors, no run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from enrich.errors import Halt, TransientError
from enrich.vectors import Vector, cosine

#: Cosine between a stored vector and the same text embedded now, below which the endpoint has
#: another vector space. Providers' own noise stays above 0.999.
SAME_SPACE_COSINE = 0.99

#: Texts that are sent for one comparison.
MOST_COMPARED = 9


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a deployment writes: vectors of `model` from `url`, into the logs of `where`."""

    url: str
    model: str
    dimensions: int
    #: Tells OpenSearch and index patterns apart.
    where: str
    #: What is done to texts before they are sent (`Endpoint.form`).
    form: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A stored vector and the text that it is of."""

    #: Whose log it is; nobody can write another project's.
    project: str
    fingerprint: str
    text: str
    vector: Vector


class Memory(Protocol):
    """What was compared last."""

    def compared_space(self, model: str, dimensions: int) -> Space | None: ...
    def remember_space(self, space: Space) -> None: ...
    def work_of_others(self) -> bool:
        """Whether a worker with other settings may still be writing."""
        ...


class Stored(Protocol):
    """The vectors that logs have of the present model and width."""

    def vouched(self, url: str) -> Sequence[Sample]:
        """Some of which it is known that `url` gave them."""
        ...

    def some(self) -> Sequence[Sample]:
        """Some, of as many projects as there are; nothing is known of who wrote them."""
        ...

    def count(self) -> tuple[int, bool]:
        """How many there are, and whether every index could be counted."""
        ...


class SpaceGuard:
    """Looks before a run buys anything."""

    def __init__(
        self,
        space: Space,
        memory: Memory,
        stored: Stored,
    ) -> None:
        self._space = space
        self._memory = memory
        self._stored = stored

    def look(
        self,
        ask: Callable[[Mapping[str, str]], Mapping[str, Vector]],
        tell: Callable[[str], None],
    ) -> None:
        """Return where the space may be written; remember it where that is sure.

        Args:
            ask: gets the vectors of texts by fingerprint from the endpoint, as far as it gives any.
            tell: takes a sentence before and after a comparison.

        Raises:
            Halt: it is another space, or nobody can say; or from `ask`.
            TransientError: it cannot be seen now; or from `ask`.
        """
        space = self._space
        known = self._memory.compared_space(space.model, space.dimensions)
        if known == space:
            return
        compared = self._compare(known, ask, tell)
        if compared is None:
            self._may_be_first(known, tell)
            return
        same, total = compared
        if 2 * same <= total:
            raise Halt(
                f"{_changed(known, space)} gives other vectors for the same text ({total - same} "
                f"of {total} that were compared): set it back, or remove log_vector from the logs "
                "so that they are made again"
            )
        tell(f"{same} of {total} stored vectors are the same from {space.url} now")
        self._memory.remember_space(space)

    def _compare(
        self,
        known: Space | None,
        ask: Callable[[Mapping[str, str]], Mapping[str, Vector]],
        tell: Callable[[str], None],
    ) -> tuple[int, int] | None:
        """How many are the same, of how many; None if none can be compared."""
        space = self._space
        for vouched in (True, False):
            url = (known or space).url
            stored = self._stored.vouched(url) if vouched else self._stored.some()
            some = in_turn(stored)[:MOST_COMPARED]
            if not some:
                continue
            tell(
                f"{len(some)} stored vectors of {space.model} are compared with what {space.url} "
                "gives for their texts now"
            )
            got = ask({sample.fingerprint: sample.text for sample in some})
            verdicts = [
                cosine(got[sample.fingerprint], sample.vector) >= SAME_SPACE_COSINE
                for sample in some
                if sample.fingerprint in got
            ]
            if verdicts:
                return sum(verdicts), len(verdicts)
        return None

    def _may_be_first(self, known: Space | None, tell: Callable[[str], None]) -> None:
        """See that there is nothing to be compared with."""
        space = self._space
        count, whole = self._stored.count()
        if count:
            raise Halt(
                f"{_changed(known, space)} cannot be compared with the {count:,} vectors of "
                f"{space.model} that logs have: their texts have changed, are masked otherwise or "
                "are refused; set it back, or remove log_vector from these logs"
            )
        if known is None:
            # An index that cannot be counted must not stop a first run; a later one looks again.
            if whole:
                self._memory.remember_space(space)
            return
        if not whole:
            raise TransientError(
                f"{_changed(known, space)} cannot be compared now: whether there are vectors of "
                f"{space.model} cannot be counted in every index"
            )
        if self._memory.work_of_others():
            raise TransientError(
                f"{_changed(known, space)} waits until a worker with the former settings has "
                "ended what it is writing"
            )
        tell(f"no log has a vector of {space.model} that {space.url} could be compared with")
        self._memory.remember_space(space)


def in_turn(samples: Sequence[Sample]) -> list[Sample]:
    """One of each project, then the second of each …: no project has more votes than another while
    there are others. Each text counts once in a project."""
    by_project: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        by_project.setdefault(sample.project, {}).setdefault(sample.fingerprint, sample)
    rounds = zip_longest(*(of_one.values() for of_one in by_project.values()))
    return [sample for some in rounds for sample in some if sample is not None]


def _changed(known: Space | None, space: Space) -> str:
    if known is not None and known.url != space.url:
        return f"OPENAI_BASE_URL changed to {space.url}, which"
    if known is not None and known.form != space.form:
        return "ENRICH_DOCUMENT_PREFIX, or an extra body, changed, which"
    return f"OPENAI_BASE_URL {space.url} for EMBEDDING_MODEL {space.model}"
