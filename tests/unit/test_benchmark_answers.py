"""How the benchmarks count whether an embedding model answers questions in other words."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.answers.__main__ import READINGS, main
from benchmarks.answers.questions import Question, answered, questions, unanswered
from dev.failures import failures


def test_thirty_questions_name_kinds_that_the_demo_provokes() -> None:
    asked = questions()

    assert Counter(question.language for question in asked) == {"en": 20, "ko": 10}
    assert len({question.words for question in asked}) == 30
    assert {kind for question in asked for kind in question.kinds} <= {
        failure.kind for failure in failures()
    }
    assert all(question.kinds for question in asked)


def test_an_answer_counts_among_the_nearest_three_only() -> None:
    kinds = ["a", "b", "c", "d"]
    texts = np.array([[1, 0.0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    third, fourth = (
        Question(language="en", words="third", kinds=("c",)),
        Question(language="ko", words="fourth", kinds=("d",)),
    )

    # The length of a vector says nothing.
    missed = unanswered([third, fourth], kinds, texts, np.array([[1, 0], [9, 0]], np.float32))

    assert missed == {fourth: ("a", "b", "c")}
    assert answered([third, fourth], list(missed)) == "1 of 2 (en 1 of 1, ko 0 of 1)"


def test_a_trace_is_read_without_its_places() -> None:
    text = 'no price\nTraceback (most recent call last):\n  File "x.py", line 1\nKeyError: 7'

    assert READINGS["ends"](text) == "no price\nKeyError: 7"
    assert READINGS["without-frames"](text) == "no price\nKeyError: 7"
    assert READINGS["whole"](text) == text


def test_an_unknown_model_is_an_error_of_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing.jar"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("answers: nothing.jar is neither") and "Traceback" not in told
