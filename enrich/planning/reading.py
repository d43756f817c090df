"""The texts of logs that are read one by one: rewritten and cut as a run does it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enrich.errors import TextUnusable
from enrich.planning.texts import DistinctTexts
from enrich.text.extract import fingerprint, text_of
from enrich.text.kinds import ALL
from enrich.text.normalizing import Normalizer, expanded

#: Distinct texts that are normalised to see what that would save: up to some milliseconds each.
MOST_NORMALIZED = 1_000


class Reading:
    """Texts of logs, as they are read."""

    def __init__(
        self,
        scope_of: Callable[[str], str],
        rewrite: Callable[[str], str] | None,
        sent_bytes: Callable[[str], int],
    ) -> None:
        self._scope_of = scope_of
        self._rewrite = rewrite
        self._sent_bytes = sent_bytes
        self.texts = DistinctTexts()
        #: The texts before they are rewritten; None where they stay as they are.
        self.raw = DistinctTexts() if rewrite is not None else None
        #: What each of the raw ones becomes: rewriting takes a hundred times as long as the rest.
        self._became: dict[str, tuple[str, int]] = {}
        self._some: dict[str, str] = {}
        self.logs = self.unusable = self.bytes = 0

    def take(self, index: str, message: str | None) -> None:
        self.logs += 1
        try:
            digest, size = self._text(index, message)
        except TextUnusable:
            self.unusable += 1
            return
        self.bytes += size
        self.texts.add(digest, size, self._scope_of(index))

    def _text(self, index: str, message: str | None) -> tuple[str, int]:
        source = {"message": message}
        text = text_of(source)
        digest = fingerprint(text)
        if self.raw is None:
            known = self.texts.get(digest)
            size = known.size if known else self._sent_bytes(text)
            self._keep(digest, text)
            return digest, size
        self.raw.add(digest, len(text))
        if digest in self._became:
            return self._became[digest]
        rewritten = text_of(source, self._rewrite)
        became = fingerprint(rewritten), self._sent_bytes(rewritten)
        if self.raw.get(digest) is not None:
            self._became[digest] = became
        self._keep(became[0], rewritten)
        return became

    def _keep(self, digest: str, text: str) -> None:
        if len(self._some) < MOST_NORMALIZED:
            self._some.setdefault(digest, text)

    def normalized(self, kinds: Sequence[str]) -> tuple[int, int]:
        """Of the first distinct texts, how many there are and how many ENRICH_NORMALIZE=all would
        leave; zeros where it is set."""
        normalize = Normalizer([ALL])
        if expanded(kinds) == expanded([ALL]):
            return 0, 0
        return len(self._some), len({normalize(text) for text in self._some.values()})
