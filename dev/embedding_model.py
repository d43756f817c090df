"""The embedding model behind the offline service: the same text, the same vector, everywhere.

The static model in the `wordllama` wheel, so that related messages really are near each other,
and a fixed projection to the lengths that OpenAI's models have. A text's vector is bit for bit
the same in any batch, process or machine, which is how tests know the right vector of every text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]

DEFAULT_DIMENSIONS = 1536
#: Native length by model: the most that `dimensions` may ask for. The real text-embedding-3-large
#: also answers 3,072 when nothing is asked; here every model answers 1,536 then.
NATIVE_DIMENSIONS = {
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
    # Its own name, which the demo uses.
    "wordllama": 3072,
}


#: Texts whose readings are kept, a kilobyte each: a benchmark asks for the same ones round
#: after round, and what stands in for a far-away service should not take the processor from what
#: is measured.
REMEMBERED_TEXTS = 30_000


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as the model reads it."""

    #: As `usage` counts them.
    tokens: int
    #: The pooled words, of the model's own length, as 15-bit integers.
    pooled: npt.NDArray[np.int32]


class Model:
    """The static model; safe to use from several threads.

    Every step is exact arithmetic, which is what makes a text's vector independent of its
    neighbours in the batch and of the order in which a processor adds: the table holds float16
    values, whose float64 sums are exact; the pooled sums are rounded to 15-bit integers; and the
    projection consists of plus and minus ones, so that its float32 products are integers below
    2**24. Only the last division rounds, once for each element.
    """

    def __init__(self) -> None:
        # Reading the files of the wheel directly avoids importing wordllama, which would
        # reconfigure the root logger.
        spec = importlib.util.find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise RuntimeError(
                "The package wordllama is missing: install the dev requirements, which bring it."
            )
        folder = Path(spec.origin).parent
        weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")
        self._table: npt.NDArray[np.float32] = weights["embedding.weight"].astype(np.float32)
        self._tokenizer: Any = Tokenizer.from_file(
            str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
        )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._projection = _projection(self._table.shape[1], max(NATIVE_DIMENSIONS.values()))
        self._remembered: OrderedDict[bytes, Reading] = OrderedDict()
        self._lock = Lock()

    def read(self, texts: list[str]) -> list[Reading]:
        """Tokenize and pool each text."""
        digests = [_digest(text) for text in texts]
        with self._lock:
            known = {d: self._remembered[d] for d in digests if d in self._remembered}
        new = {d: text for d, text in zip(digests, texts, strict=True) if d not in known}
        if new:
            known |= dict(zip(new, self._read_anew(list(new.values())), strict=True))
        with self._lock:
            for digest in digests:
                self._remembered[digest] = known[digest]
                self._remembered.move_to_end(digest)
            while len(self._remembered) > REMEMBERED_TEXTS:
                self._remembered.popitem(last=False)
        return [known[digest] for digest in digests]

    def count_tokens(self, texts: list[str]) -> list[int]:
        """The number of tokens of each text, as `usage` counts them."""
        return [reading.tokens for reading in self.read(texts)]

    def embed(self, texts: list[str], dimensions: int = DEFAULT_DIMENSIONS) -> Vectors:
        """Unit vectors of shape (len(texts), dimensions)."""
        return self.vectors(self.read(texts), dimensions)

    def vectors(self, readings: list[Reading], dimensions: int = DEFAULT_DIMENSIONS) -> Vectors:
        """As `embed`, for texts already read."""
        if not readings:
            return np.zeros((0, dimensions), np.float32)
        integers = np.stack([reading.pooled for reading in readings]).astype(np.float32)
        projected = (integers @ self._projection[:, :dimensions]).astype(np.float64)
        lengths = np.sqrt((projected * projected).sum(axis=1, keepdims=True))
        vectors: Vectors = (projected / lengths).astype(np.float32)
        return vectors

    def _read_anew(self, texts: list[str]) -> list[Reading]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens = [encoding.ids for encoding in encodings]
        pooled = np.stack([self._table[ids].sum(axis=0, dtype=np.float64) for ids in tokens])
        # A text without any token must have a direction too.
        pooled[~pooled.any(axis=1), 0] = 1.0
        _, exponents = np.frexp(np.abs(pooled).max(axis=1, keepdims=True))
        integers = np.rint(np.ldexp(pooled, 15 - exponents)).astype(np.int32)
        return [Reading(len(ids), row) for ids, row in zip(tokens, integers, strict=True)]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _projection(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A fixed (rows, columns) matrix of ±1 whose rows are orthogonal, so that angles are kept.

    Hadamard matrices side by side, each with its rows' signs drawn anew: the rows of each are
    orthogonal, hence those of the whole, and of its first `rows`, 2·`rows`, … columns.
    """
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < rows:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    # Python's generator, whose sequence is promised to stay, unlike numpy's.
    source = random.Random(1536)
    blocks = []
    for _ in range(columns // rows):
        signs = np.array([source.choice((-1.0, 1.0)) for _ in range(rows)], np.float32)
        blocks.append(signs[:, np.newaxis] * hadamard)
    return np.ascontiguousarray(np.hstack(blocks))
