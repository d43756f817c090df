"""The thirty questions with their right answers, and how the answers of a model are counted.

An answer is right if one of the nearest three distinct texts is of a kind that the question names
(a kind of `dev/failures`). The questions were written before any model was asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

NEAREST = 3

Vectors = npt.NDArray[np.float32]


class Question(BaseModel, frozen=True, extra="forbid"):
    language: Literal["en", "ko"]
    words: str
    #: Any of these kinds of failure is a right answer.
    kinds: tuple[str, ...]


def questions() -> list[Question]:
    """All, as they stand in questions.json."""
    listed = json.loads((Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    return [Question.model_validate(each) for each in listed]


def unanswered(
    asked: Sequence[Question], kinds: Sequence[str], texts: Vectors, words: Vectors
) -> dict[Question, tuple[str, ...]]:
    """The questions without a right answer, each with the kinds that were found instead.

    Args:
        kinds: of the texts, which are distinct; in the order of `texts`.
        texts: shape (len(kinds), n).
        words: shape (len(asked), n).
    """
    cosines = _units(words) @ _units(texts).T
    missed = {}
    for question, row in zip(asked, cosines, strict=True):
        found = tuple(kinds[at] for at in np.argsort(-row, kind="stable")[:NEAREST])
        if not set(found) & set(question.kinds):
            missed[question] = found
    return missed


def answered(asked: Sequence[Question], missed: Sequence[Question]) -> str:
    """`11 of 30 (en 9 of 20, ko 2 of 10)`."""
    all_ = Counter(question.language for question in asked)
    right = all_ - Counter(question.language for question in missed)
    parts = ", ".join(f"{language} {right[language]} of {all_[language]}" for language in all_)
    return f"{right.total()} of {all_.total()} ({parts})"


def _units(vectors: Vectors) -> Vectors:
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units
