"""What a text goes through before it is cut, fingerprinted and sent: masking, then normalising."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enrich.text.masking import masker_of
from enrich.text.normalizing import normalizer_of

Rewrite = Callable[[str], str]


def rewriting(mask: Sequence[str], normalize: Sequence[str]) -> Rewrite | None:
    """All of it as one function, or None where a text stays as it is.

    Args:
        mask: kinds of `enrich.text.masking`; they go first, since a part of a secret is none.
        normalize: kinds of `enrich.text.normalizing`.
    """
    masker, normalizer = masker_of(mask), normalizer_of(normalize)
    if masker is None or normalizer is None:
        return masker or normalizer
    return lambda text: normalizer(masker(text))
