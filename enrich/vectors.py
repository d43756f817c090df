"""An embedding vector in this process: its type, its form in bytes, and what no vector is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Of shape (dimensions,).
Vector = npt.NDArray[np.float32]

#: Little-endian, as the API's base64 and the cache have it.
BYTES = np.dtype("<f4")


def is_usable(vector: Vector) -> bool:
    """Whether all of its numbers are finite and some are not zero, as a cosine needs it."""
    # One pass and a half; not a number is neither more nor less than anything.
    return bool(0 < np.abs(vector).max() < np.inf)


def cosine(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Of two vectors of the same shape, neither of them zero; computed in double precision."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
