"""What the texts of waiting logs are like: usable, repeated, alike but for numbers and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from more_itertools import sliced

from enrich.errors import TextUnusable
from enrich.log_store import Readiness, Target
from enrich.log_store.interfaces import PageReader
from enrich.text.extract import fingerprint, text_of
from enrich.text.kinds import ALL
from enrich.text.normalizing import Normalizer
from enrich.text.rewriting import Rewrite

#: Waiting logs of each index whose text is looked at, and in how many indices.
MOST_LOOKED_AT = 500
_INDICES_LOOKED_AT = 50
_ABREAST = 4

#: Distinct texts that are normalised to see what that would save: a few milliseconds each.
MOST_NORMALISED = 1_000


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What was seen of some waiting logs."""

    looked_at: int = 0
    #: How many of them have no usable text.
    unusable: int = 0
    #: Distinct texts as they would be sent, of MOST_NORMALISED at most.
    distinct: int = 0
    #: How many would be left of those with all that ENRICH_NORMALIZE can replace.
    normalised: int = 0


def texts_of(
    finder: PageReader,
    indices: Sequence[str],
    ready: Readiness,
    unsorted: frozenset[str],
    rewrite: Rewrite | None,
) -> Texts:
    """Look at the newest waiting logs of indices."""
    looked_at = unusable = 0
    texts: set[str] = set()
    alike: set[str] = set()
    normalise = Normalizer([ALL])
    for names in sliced(indices[:_INDICES_LOOKED_AT], _ABREAST):
        targets = [
            Target(name, None, min(MOST_LOOKED_AT, ready.windows.get(name, MOST_LOOKED_AT)))
            for name in names
        ]
        for page in finder.page(targets, unsorted):
            looked_at += len(page.hits)
            for hit in page.hits:
                try:
                    text = text_of({"message": hit.message}, rewrite)
                except TextUnusable:
                    unusable += 1
                    continue
                digest = fingerprint(text)
                if len(texts) < MOST_NORMALISED and digest not in texts:
                    texts.add(digest)
                    alike.add(normalise(text))
    return Texts(looked_at=looked_at, unusable=unusable, distinct=len(texts), normalised=len(alike))
