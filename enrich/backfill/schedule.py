"""Which logs come next: rounds of searches, in which one index after the other has its turn.

A page is put together from several rounds. The more logs are looked at together, the more of those
that share a text travel together, and no answer is larger than a process can hold. Nothing is
registered or published here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from enrich.backfill.chunking import Found, fit_page
from enrich.errors import TextUnusable
from enrich.ledger import Scan
from enrich.log_store import Hit, IndexPage, Target
from enrich.log_store.interfaces import PageReader
from enrich.text.extract import fingerprint, text_of
from enrich.text.rewriting import Rewrite

#: Most documents of one round of searches: with twice as many, a process that reads one only now
#: and then grew by 10 %.
ROUND_DOCUMENTS = 2000

#: Most rounds of a page. Its first logs wait until the last is read.
_ROUNDS = 3
#: The first pages have a round each, the first ones a part of it, so that workers begin at once.
_PAGES_OF_GROWTH = 3

#: Most indices searched in one round; the others have their turn in the next.
_ROUND_INDICES = 50

#: A turn is as many logs as a page has at most, and all indices have had one after about so many. A
#: shard that is written for a while and then left alone is refreshed and merged less than one that
#: is written a little each second: OpenSearch needs a tenth less for the same logs.
_TURNS_OF_ALL = 12

#: Logs that a page is asked for, for each text that its chunks may have.
_LOGS_OF_A_TEXT = 4

#: Stands in a fingerprint's place for a log without usable text, which shares it with no other.
_UNUSABLE = "unusable"

#: An index still to be searched, and the cursor behind the last log read.
_Pending = tuple[str, list[Any] | None]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Logs to be enriched, and where the next page begins."""

    #: Those that travel together.
    chunks: list[list[Found]]
    #: The scan behind this page.
    scan: Scan
    #: Indices that could not be searched, and why.
    troubled: dict[str, str]
    #: Indices whose search ran out of time; they are still pending.
    late: set[str]

    @cached_property
    def found(self) -> list[Found]:
        return [found for chunk in self.chunks for found in chunk]


class _Row(msgspec.Struct, frozen=True):
    """One hit of a round."""

    index: str
    #: Behind this hit.
    cursor: list[Any]
    #: None for a document that is passed over, because it is known to fail and cannot be marked.
    found: Found | None


@dataclass(kw_only=True)
class _Rounds:
    """What the rounds of a page brought."""

    rows: list[_Row] = field(default_factory=list)
    #: Indices that have nothing behind their rows.
    ended: set[str] = field(default_factory=set)
    troubled: dict[str, str] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)


class Pager:
    """Reads pages; changes nothing."""

    def __init__(self, finder: PageReader, *, texts_a_chunk: int, rewrite: Rewrite | None) -> None:
        self._finder = finder
        self._texts = texts_a_chunk
        self._rewrite = rewrite

    def read(
        self,
        scan: Scan,
        page: int,
        *,
        slots: int,
        most: float,
        refused: Collection[tuple[str, str]],
        late: Collection[str] = (),
    ) -> Page:
        """Read the scan's next page.

        Args:
            scan: with something pending.
            page: its number, from 1.
            slots: chunks that it may have at most.
            most: logs that it may have at most.
            refused: documents to be passed over, by index and id.
            late: indices that are given up if their search runs out of time once more.

        Raises:
            TransientError: OpenSearch did not answer.
        """
        rounds = _ROUNDS if page > _PAGES_OF_GROWTH else 1
        large = rounds * ROUND_DOCUMENTS >> max(0, _PAGES_OF_GROWTH - page)
        fitting = slots * self._texts * _LOGS_OF_A_TEXT
        wanted = int(min(large, fitting, most))
        read = self._rounds(scan, wanted, slots, refused, late)
        found = [row.found for row in read.rows if row.found is not None]
        taken, chunks = fit_page(
            found[: int(min(most, len(found)))], slots=slots, texts=self._texts
        )
        done = _done(read.rows, len(taken))
        reached, undone = _cursors(read.rows[:done]), _cursors(read.rows[done:])
        ended = read.ended.difference(undone)
        left = _left(scan.left, taken)
        pending = _behind(scan.pending, reached, ended)
        turn = _ROUNDS * min(ROUND_DOCUMENTS, fitting)
        in_turn = scan.in_turn + len(taken)
        if in_turn >= turn:
            each = turn / _abreast(len(scan.pending), scan.nodes)
            # Whose turn it was goes to the back, but for what another one would bring to its end.
            pending.sort(key=lambda p: p[0] in reached and not 0 < left.get(p[0], 0) <= each)
            in_turn = 0
        return Page(
            chunks=chunks,
            scan=replace(scan, pending=pending, left=left, in_turn=in_turn),
            troubled=read.troubled,
            late=read.late,
        )

    def _rounds(
        self,
        scan: Scan,
        wanted: int,
        slots: int,
        refused: Collection[tuple[str, str]],
        late: Collection[str],
    ) -> _Rounds:
        """Search until the page is full, or what the next round brings might find no slots.

        The rounds behind the first one stay with its indices: a further one would be written beside
        them for as long as the page lasts, since logs that share a text travel together.
        """
        read = _Rounds()
        pending: Sequence[_Pending] = scan.pending
        left: Mapping[str, int] = scan.left
        texts: set[str] = set()
        for _ in range(_ROUNDS):
            size = min(ROUND_DOCUMENTS, wanted - len(read.rows))
            if not pending or size <= 0 or (texts and len(texts) + size > slots * self._texts):
                break
            share = math.ceil(size / _abreast(len(pending), scan.nodes))
            targets = _targets(pending, left, share, size, scan.windows)
            pages = self._finder.page(targets, frozenset(scan.unsorted))
            rows = self._in_turn(pages, refused)
            found = [row.found for row in rows if row.found is not None]
            read.rows += rows
            read.late |= {page.index for page in pages if page.late and page.index not in late}
            read.troubled |= {
                page.index: page.trouble
                for page in pages
                if page.trouble and page.index not in read.late
            }
            read.ended |= {page.index for page in pages if page.exhausted} | read.troubled.keys()
            reached = _cursors(rows)
            pending = [p for p in _behind(pending, reached, read.ended) if p[0] in reached]
            left = _left(left, found)
            texts.update(one.fingerprint for one in found)
        return read

    def _in_turn(
        self, pages: Sequence[IndexPage], refused: Collection[tuple[str, str]]
    ) -> list[_Row]:
        """Logs of all indices in turn, the newest of each first."""
        order = sorted(
            (nth, which) for which, page in enumerate(pages) for nth in range(len(page.hits))
        )
        rows = []
        for nth, which in order:
            page = pages[which]
            hit = page.hits[nth]
            passed_over = (page.index, hit.reference.id) in refused
            rows.append(
                _Row(page.index, page.cursors[nth], None if passed_over else self._found(hit))
            )
        return rows

    def _found(self, hit: Hit) -> Found:
        try:
            # Of a message shortened by OpenSearch: where the cut parts what would be masked, the
            # worker's text may be another. It only travels in other company.
            digest = fingerprint(text_of({"message": hit.message}, self._rewrite))
        except TextUnusable:
            digest = f"{_UNUSABLE} {hit.reference.index} {hit.reference.id}"
        return Found(reference=hit.reference, fingerprint=digest, size=hit.size)


def has_text(found: Found) -> bool:
    """Whether its fingerprint is that of a text."""
    return not found.fingerprint.startswith(_UNUSABLE)


def _abreast(pending: int, nodes: int) -> int:
    """How many of the pending indices share a round evenly: as few as give every data node work,
    but enough that the next turn is near."""
    near = math.ceil(pending / _TURNS_OF_ALL)
    return min(_ROUND_INDICES, pending, max(nodes, near))


def _targets(
    pending: Sequence[_Pending],
    left: Mapping[str, int],
    share: int,
    wanted: int,
    windows: Mapping[str, int],
) -> list[Target]:
    """The first indices, each with its share, or with what is left of it where that is less; and
    further ones until the round is full."""
    targets = []
    for index, cursor in pending[:_ROUND_INDICES]:
        window = windows.get(index, ROUND_DOCUMENTS + 1)
        most = min(share, wanted, window)
        if most <= 0:
            break
        # None left is no count: such an index has more than the survey knew of.
        last = 0 < left.get(index, 0) <= most
        expected = left[index] if last else most
        # One more than is left shows that none is.
        targets.append(Target(index, cursor, min(expected + last, window)))
        wanted -= expected
    return targets


def _left(left: Mapping[str, int], taken: Iterable[Found]) -> dict[str, int]:
    """The logs left in each index, as the survey counted it."""
    gone = Counter(found.reference.index for found in taken)
    return {
        index: pending - gone[index] for index, pending in left.items() if pending > gone[index]
    }


def _done(rows: Sequence[_Row], taken: int) -> int:
    """How many rows are done with when so many logs were taken."""
    for n, row in enumerate(rows):
        if row.found is not None:
            if taken == 0:
                return n
            taken -= 1
    return len(rows)


def _cursors(rows: Iterable[_Row]) -> dict[str, list[Any]]:
    """The cursor behind the last row of each index."""
    return {row.index: row.cursor for row in rows}


def _behind(
    pending: Iterable[_Pending], reached: Mapping[str, list[Any]], ended: Collection[str]
) -> list[_Pending]:
    """The indices that have more, each with the cursor behind its last row that is done with."""
    return [(index, reached.get(index, cursor)) for index, cursor in pending if index not in ended]
