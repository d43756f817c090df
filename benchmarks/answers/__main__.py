"""`python -m benchmarks.answers [MODEL | JAR]`: how many of the questions a model answers.

Provokes the demo's failures on servers of its own, makes the demo's 5,000 logs of them, embeds
their 600 distinct ERROR texts and the questions, and prints the hits and the seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.answers.models import MODELS, ModelMissing, in_jar
from benchmarks.answers.questions import answered, questions, unanswered
from dev.failures import Failure, failures, ordinary
from dev.sample_logs import generate
from enrich.text.extract import text_of

LOGS = 5_000
#: Of either end, where only the ends of a text are read.
_END_CHARACTERS = 300


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    if options.model not in MODELS and not Path(options.model).is_file():
        print(f"answers: {options.model} is neither {', '.join(MODELS)} nor a jar", file=sys.stderr)
        return 2
    try:
        build = MODELS.get(options.model) or (lambda: in_jar(Path(options.model)))
        embed = build()
        kind_of = _texts()
    except ModelMissing as error:
        print(f"answers: {error}", file=sys.stderr)
        return 2
    read = READINGS[options.reading]
    asked = questions()
    wall, processor = time.perf_counter(), time.process_time()
    vectors = embed([read(text) for text in kind_of], False)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    words = embed([question.words for question in asked], True)
    missed = unanswered(asked, list(kind_of.values()), vectors, words)
    for question, found in missed.items():
        print(f"missed: {question.words!r}: {', '.join(found)}")
    print(
        f"{options.model}, {options.reading}: {answered(asked, list(missed))}; {len(kind_of)} "
        f"texts in {wall:.1f} s, {processor:.1f} s of processor time"
    )
    return 0


def _texts() -> dict[str, str]:
    """Every distinct text of the demo's ERROR logs, with its kind of failure."""
    # The generated logs keep the service's name and not the kind.
    named = [
        Failure(kind=each.kind, service_name=each.kind, logger=each.logger, message=each.message)
        for each in failures()
    ]
    logs = generate(LOGS, failures=named, ordinary=ordinary())
    documents = (log.document for log in logs if log.document["level"] == "ERROR")
    return {text_of(document): document["service_name"] for document in documents}


def _whole(text: str) -> str:
    return text


def _ends(text: str) -> str:
    """The first line and the last, where a trace names its error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(line[:_END_CHARACTERS] for line in dict.fromkeys((lines[0], lines[-1])))


def _without_frames(text: str) -> str:
    """The text without the lines that say where in the code."""
    first, *rest = text.splitlines()
    places = (" ", "\t", "Traceback", "During", "The above")
    told = [line for line in rest if line and not line.startswith(places)]
    return "\n".join([first, *told])[:800]


#: What of a text the model gets: a trace is long, slow to embed, and mostly places in the code.
READINGS: dict[str, Callable[[str], str]] = {
    "whole": _whole,
    "ends": _ends,
    "without-frames": _without_frames,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("model", nargs="?", default="wordllama", help=f"{', '.join(MODELS)}, a jar")
    parser.add_argument("--reading", choices=READINGS, default="whole")
    return parser


if __name__ == "__main__":
    sys.exit(main())
