"""Asking the embeddings API for a chunk's texts: into how many requests, and what a refusal means.

A refusal for what is in the texts is narrowed down by halves until its culprit stands alone, and
its neighbours have their vectors; a request too large is cut by size. Never is anything split for
trouble that passes. Every request is counted, whether it brought anything or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from enrich.embedder import Embedded, Embedder
from enrich.errors import (
    Halt,
    InputRefused,
    RateLimited,
    RequestTooLarge,
    TransientError,
)
from enrich.rate_budget import RateBudget
from enrich.settings import MAX_INPUTS_PER_REQUEST
from enrich.slices import bounded
from enrich.turns import MAX_WAIT_SECONDS
from enrich.vectors import Vector

#: UTF-8 bytes in one request. OpenAI refuses 300,000 tokens; log text has 2 bytes a token at the
#: least (Korean, hexadecimal), so that this holds; a request that does not is cut when refused.
MAX_REQUEST_BYTES = 600_000

#: Where tokens are limited, a request takes no more than so many seconds' worth: another's turn is
#: near then, and no request is larger than what the limit lets through at all.
REQUEST_SECONDS = 10.0

#: Bytes a token, roughly; what OpenAI's own check of a request's size assumes.
BYTES_PER_TOKEN = 4

#: A text that every endpoint takes: tells a refused text from an endpoint that refuses all.
HARMLESS_TEXT = "connection refused"

#: A pause asked for by 429 without Retry-After, in seconds.
DEFAULT_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What came of the texts, by fingerprint."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    #: Texts that the API refuses by themselves, and the code for their documents.
    refused: dict[str, str] = field(default_factory=dict)
    #: Texts for which the API sent numbers that are no vector; another time may bring one.
    invalid: set[str] = field(default_factory=set)


class Asking:
    """Requests within the rate budget, counted into a run."""

    def __init__(self, embedder: Embedder, budget: RateBudget, count: Callable[..., None]) -> None:
        """Args: count: takes a run, and api_requests, api_inputs, … to be added to it."""
        self._embedder = embedder
        self._budget = budget
        self._count = count
        #: Some services take fewer inputs than others, and say it in words of their own.
        self._most_inputs = MAX_INPUTS_PER_REQUEST

    def ask(
        self, run: str, texts: Mapping[str, str], keep: Callable[[dict[str, Vector]], None]
    ) -> Answers:
        """Get the vectors of texts by fingerprint.

        Args:
            keep: called with the vectors of each request at once, before anything else can fail,
                so that what was paid for is never paid for again.

        Raises:
            Halt, RateLimited, TransientError: from the API; vectors got before were kept.
        """
        answers = Answers()
        # A task that has many requests waits for all their turns together no longer than for one.
        patience = MAX_WAIT_SECONDS
        waiting = requests_of(texts.items(), self._most_bytes(), self._most_inputs)[::-1]
        halved = False
        largest = 0
        while waiting:
            batch = waiting.pop()
            texts_of_batch = [text for _, text in batch]
            patience -= self._budget.wait(sum(map(_tokens, texts_of_batch)), patience)
            try:
                answer = self._request(run, texts_of_batch)
            except InputRefused as error:
                too_large = isinstance(error, RequestTooLarge)
                if len(batch) == 1:
                    answers.refused[batch[0][0]] = "text_too_large" if too_large else "text_refused"
                    if len(answers.refused) == 2 and not answers.vectors:
                        # Two neighbours by themselves, and nothing went through: before all the
                        # others are tried one by one as well.
                        self._tell_apart(run, patience)
                    continue
                halved |= not too_large
                middle = half_of_bytes(batch) if too_large else len(batch) // 2
                waiting += [batch[middle:], batch[:middle]]
                continue
            got = {}
            for (fingerprint, _), vector in zip(batch, answer.vectors, strict=True):
                if vector is None:
                    answers.invalid.add(fingerprint)
                else:
                    got[fingerprint] = vector
            keep(got)
            self._count_answer(run, texts_of_batch, answer)
            answers.vectors.update(got)
            largest = max(largest, len(batch))
        if halved and largest and not answers.refused:
            # None of them was at fault: they were too many.
            self._most_inputs = largest
        if len(answers.refused) == 1 and not answers.vectors:
            self._tell_apart(run, patience)
        if answers.invalid:
            self._count(run, errors=len(answers.invalid))
        return answers

    def probe(self, run: str, patience: float = MAX_WAIT_SECONDS) -> None:
        """Send one harmless text, to see whether the endpoint works at all. Raises as `ask`."""
        self._budget.wait(_tokens(HARMLESS_TEXT), patience)
        self._count_answer(run, [HARMLESS_TEXT], self._request(run, [HARMLESS_TEXT]))

    def _most_bytes(self) -> int:
        requests, tokens = self._budget.limits()
        if not tokens:
            return MAX_REQUEST_BYTES
        # With few requests a minute each has to take more, or the tokens would never be used.
        seconds = max(REQUEST_SECONDS, min(2 * REQUEST_SECONDS, 60 / requests if requests else 0))
        return min(MAX_REQUEST_BYTES, int(tokens * seconds / 60) * BYTES_PER_TOKEN)

    def _tell_apart(self, run: str, patience: float) -> None:
        # Nothing went through: before logs are marked for ever, see whether anything would.
        try:
            self.probe(run, patience)
        except InputRefused as error:
            raise Halt(
                f"{error}, and even a harmless text: check EMBEDDING_MODEL and OPENAI_BASE_URL"
            ) from None

    def _request(self, run: str, texts: list[str]) -> Embedded:
        try:
            return self._embedder.embed(texts)
        except RateLimited as error:
            self._count(run, api_requests=1, rate_limited=1)
            pause = error.retry_after if error.retry_after is not None else DEFAULT_PAUSE_SECONDS
            self._budget.pause(pause)
            raise RateLimited(str(error), pause) from None
        except (TransientError, InputRefused, Halt):
            self._count(run, api_requests=1)
            raise

    def _count_answer(self, run: str, texts: list[str], answer: Embedded) -> None:
        expected = sum(map(_tokens, texts))
        # An endpoint that does not tell: budget and daily cost hold for it as well.
        tokens = answer.tokens or expected
        self._count(run, api_requests=answer.requests, api_inputs=len(texts), api_tokens=tokens)
        self._budget.learn(answer.limits)
        self._budget.correct(expected, tokens)


def requests_of(
    texts: Iterable[tuple[str, str]], max_bytes: int, max_inputs: int = MAX_INPUTS_PER_REQUEST
) -> list[list[tuple[str, str]]]:
    """Cut texts into requests within the provider's limits, in order."""
    return list(
        bounded(texts, lambda text: len(text[1].encode()), size=max_bytes, count=max_inputs)
    )


def half_of_bytes(batch: list[tuple[str, str]]) -> int:
    """Where to cut two texts or more into parts of about equal size, neither empty."""
    total = sum(len(text) for _, text in batch)
    size = 0
    for position, (_, text) in enumerate(batch[:-1]):
        size += len(text)
        if 2 * size >= total:
            return position + 1
    return len(batch) - 1


def _tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN + 1
