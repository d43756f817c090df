"""Texts become requests: how many, how large, and what a refusal of one means.

What a refusal means is decided by evidence, not by its status: endpoints answer one text that they
cannot take with 400, 403, 424, 500, or 200 and an error. A request that fails is narrowed down by
halves while others go through, until its culprit stands alone; its neighbours have their vectors
then. A text is given up only after a harmless one was taken once more, right after the refusal;
where that is refused too, the trouble is the endpoint's. Where it failed in a way that can pass, a
later run has to see the same. A text too long for the model is cut shorter. Every request is
counted, whether it brought anything or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from more_itertools import constrained_batches

from enrich.embedding.client import Embedded, Embedder
from enrich.embedding.limits import LEAST_TEXT_BYTES, EndpointLimits, LimitStore, OwnLimits
from enrich.embedding.lone_failures import (
    LOAD,
    LoneFailures,
    OwnLoneFailures,
    can_pass,
    told,
)
from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RateLimited,
    RequestTooLarge,
    TransientError,
)
from enrich.models import LoneFailure
from enrich.ratelimit.api_quota import Limits
from enrich.ratelimit.gcra import MAX_WAIT_SECONDS
from enrich.settings import MAX_INPUTS_PER_REQUEST, MAX_REQUEST_BYTES
from enrich.text.extract import LEAST_CUT_BYTES, MAX_TEXT_BYTES, cut
from enrich.vectors import Vector

#: Where tokens are limited, a request takes no more than so many seconds' worth: another's turn is
#: near then, and no request is larger than what the limit lets through at all.
REQUEST_SECONDS = 10.0

#: Where live logs have priority, a request of others takes this part of what their reserve leaves:
#: it may be billed for more tokens than it was reckoned to have.
PART_OF_ROOM = 2 / 3

#: Bytes a token, roughly; what OpenAI's own check of a request's size assumes.
BYTES_PER_TOKEN = 4

#: A text that every endpoint takes: tells a refused text from an endpoint that refuses all.
HARMLESS_TEXT = "connection refused"

#: Ways of failing that teach nothing of what an endpoint takes.
PASSING = LOAD

#: How often a text that failed in an earlier run as well is sent once more before it is given up,
#: a harmless text being taken after each: a server that fails for one request in ten would mark
#: each hundredth of the texts of its first run otherwise.
CONFIRMATIONS = 3

#: Requests of one call that may run into the time-out; more, and the task would run into its own.
#: After the second one nothing is split any more, but the other half is still asked for.
MOST_TIME_OUTS = 2

#: Of the part of a text that fits by what a refusal tells: tokens are not spread evenly.
CAUTION = 0.9

Texts = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What came of the texts, by fingerprint."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    #: Texts that the API refuses by themselves, and the code for their documents.
    refused: dict[str, str] = field(default_factory=dict)
    #: Texts for which the API sent numbers that are no vector, or that failed in a way that passes;
    #: another time may bring one.
    invalid: set[str] = field(default_factory=set)
    #: Texts that were not sent because somebody else has, or has sent them meanwhile.
    elsewhere: set[str] = field(default_factory=set)
    #: Why some of these have none, in sentences.
    reasons: dict[str, str] = field(default_factory=dict)


class Meter(Protocol):
    """Counts what is used: api_requests, api_inputs, api_tokens, rate_limited, errors."""

    def count(self, **amounts: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Caller:
    """For whom requests are made."""

    #: What a text's failure is seen within; seeing the same in another one is evidence.
    occasion: str
    #: Where requests, inputs and tokens are counted.
    meter: Meter


class Quota(Protocol):
    """Permits for requests, shared by all who ask the API."""

    def acquire(self, tokens: int, timeout: float = ...) -> float:
        """Take a permit for so many tokens; the seconds waited. Raises RateLimited."""
        ...

    def pause(self, seconds: float) -> None: ...
    def correct(self, tokens: int, billed: int) -> None: ...
    def limits(self) -> tuple[int, int]: ...

    def room_seconds(self) -> float:
        """Seconds' worth of the limit of tokens that one request should take at most."""
        ...

    def learn(self, limits: Limits) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What requests that were answered took."""

    requests: int
    inputs: int
    #: UTF-8 bytes of the texts as they were sent.
    bytes: int
    #: As the endpoint billed them.
    tokens: int


class Batching:
    """Requests within the API's quota, counted for whoever asks."""

    def __init__(
        self,
        embedder: Embedder,
        quota: Quota,
        limits: LimitStore | None = None,
        max_text_bytes: int = 0,
        lone_failures: LoneFailures | None = None,
        *,
        most: EndpointLimits | None = None,
        prefix_bytes: int = 0,
        cuts: bool = True,
        measured: Callable[[Measured], None] = lambda measured: None,
    ) -> None:
        """
        Args:
            limits: what was learned of the endpoint; None learns for this object alone.
            max_text_bytes: what the model takes of a text; 0 learns it.
            lone_failures: what was seen on earlier occasions; None remembers for this object alone.
            most: what a request may have from the start.
            prefix_bytes: what the embedder puts before each text.
            cuts: whether a text that is too long for the model is cut; otherwise it is refused.
            measured: takes what each request was billed, where the endpoint tells.
        """
        self._embedder = embedder
        self._quota = quota
        self.limits = limits or OwnLimits()
        self.lone_failures: LoneFailures = lone_failures or OwnLoneFailures()
        self.max_text_bytes = max_text_bytes or MAX_TEXT_BYTES
        self.most = most or EndpointLimits()
        self.prefix_bytes = prefix_bytes
        self.cuts = cuts
        self._measured = measured
        #: The most that one request of this process got through.
        self.passed_inputs = 0
        self.passed_bytes = 0
        #: Inputs of a request that failed though both of its halves went through, if the last one
        #: so large did: once may have been chance.
        self.suspected_inputs = 0

    def embed(
        self,
        texts: Mapping[str, str],
        caller: Caller,
        keep: Callable[[dict[str, Vector]], None],
        sends: Callable[[Sequence[str]], set[str]] = set,
    ) -> Results:
        """Get the vectors of texts by fingerprint.

        Args:
            keep: called with the vectors of each request at once, before anything else can fail,
                so that what was paid for is never paid for again.
            sends: told right before each request, when its permit is there; answers which of the
                texts are still to be sent.

        Raises:
            Halt, RateLimited, TransientError: from the API; vectors got before were kept.
        """
        call = _Call(self, caller, keep, sends)
        call.embed(texts)
        if call.results.invalid:
            caller.meter.count(errors=len(call.results.invalid))
        return call.results

    def probe(self, caller: Caller, timeout: float = MAX_WAIT_SECONDS) -> None:
        """Send one harmless text, to see whether the endpoint works at all. Raises as `embed`."""
        self.acquire([HARMLESS_TEXT], timeout)
        self.count_request(caller, [HARMLESS_TEXT], self.request(caller, [HARMLESS_TEXT]))

    def acquire(self, texts: Iterable[str], timeout: float) -> float:
        """Take a permit for a request of these texts; the seconds waited for it."""
        return self._quota.acquire(self._tokens(texts), timeout)

    def give_back(self, texts: Iterable[str]) -> None:
        """Return the tokens of texts that a permit was taken for and that are not sent."""
        self._quota.correct(self._tokens(texts), 0)

    def _tokens(self, texts: Iterable[str]) -> int:
        """Of a request, roughly."""
        sizes = (self.prefix_bytes + len(text.encode()) for text in texts)
        return sum(size // BYTES_PER_TOKEN + 1 for size in sizes)

    def most_bytes(self) -> int:
        """Of one request, by the limits of tokens."""
        requests, tokens = self._quota.limits()
        if not tokens:
            return MAX_REQUEST_BYTES
        # With few requests a minute each has to take more, or the tokens would never be used.
        seconds = max(REQUEST_SECONDS, min(2 * REQUEST_SECONDS, 60 / requests if requests else 0))
        seconds = min(seconds, PART_OF_ROOM * self._quota.room_seconds())
        return min(MAX_REQUEST_BYTES, max(1, int(tokens * seconds / 60)) * BYTES_PER_TOKEN)

    def request(self, caller: Caller, texts: list[str]) -> Embedded:
        """Send one request; it is counted if it fails."""
        try:
            return self._embedder.embed(texts)
        except RateLimited as error:
            caller.meter.count(api_requests=1, rate_limited=1, paused_ms=round(1000 * error.pause))
            self._quota.pause(error.pause)
            raise RateLimited(str(error), error.pause) from None
        except (TransientError, InputRefused, Halt):
            caller.meter.count(api_requests=1)
            raise

    def count_request(self, caller: Caller, texts: list[str], answer: Embedded) -> None:
        """Count a request that was answered."""
        expected = self._tokens(texts)
        # An endpoint that does not tell: budget and daily cost hold for it as well.
        tokens = answer.tokens or expected
        caller.meter.count(api_requests=answer.requests, api_inputs=len(texts), api_tokens=tokens)
        if answer.tokens:
            size = sum(self.prefix_bytes + len(text.encode()) for text in texts)
            self._measured(
                Measured(
                    requests=answer.requests, inputs=len(texts), bytes=size, tokens=answer.tokens
                )
            )
        self._quota.learn(answer.limits)
        self._quota.correct(expected, tokens)


@dataclass(kw_only=True)
class _Outcome:
    """What came of a batch and of the halves that it was cut into."""

    #: Whether every text of it has its answer, so that none of them is to blame for a failure.
    whole: bool
    #: How the batch failed as it was, if it did.
    error: EnrichError | None = None
    #: Inputs and bytes of the batch, and the most that went through in one request of it.
    inputs: int = 0
    size: int = 0
    passed_inputs: int = 0
    passed_bytes: int = 0


class _Call:
    """One call of `embed`."""

    def __init__(
        self,
        batching: Batching,
        caller: Caller,
        keep: Callable[[dict[str, Vector]], None],
        sends: Callable[[Sequence[str]], set[str]],
    ) -> None:
        self.results = Results()
        self._sends = sends
        self._batching = batching
        self._caller = caller
        self._keep = keep
        # Many requests of one call wait for all their permits together no longer than for one.
        self._timeout = MAX_WAIT_SECONDS
        self._time_outs = 0
        self._late: EnrichError | None = None
        self._limits = batching.limits.read().lowered(batching.most)

    def embed(self, texts: Mapping[str, str]) -> None:
        waiting = self._batches(texts.items())
        while waiting:
            before = self._limits
            outcome = self._narrow(waiting.pop(0), "", works=False)
            if outcome.whole:
                self._learn(outcome)
            if self._limits != before:
                left = [fingerprint for batch in waiting for fingerprint, _ in batch]
                waiting = self._batches((each, texts[each]) for each in left)
        if self._late is not None and self._unanswered(texts):
            # The next try has fewer texts, and splits them further.
            raise self._late

    def _unanswered(self, texts: Mapping[str, str]) -> bool:
        results = self.results
        answered = {*results.vectors, *results.refused, *results.invalid}
        return bool(texts.keys() - answered - results.elsewhere)

    def _batches(self, texts: Iterable[tuple[str, str]]) -> list[Texts]:
        limits = self._limits
        most_text = min(limits.text_bytes or MAX_TEXT_BYTES, self._batching.max_text_bytes)
        if most_text < MAX_TEXT_BYTES and self._batching.cuts:
            texts = ((fingerprint, cut(text, most_text)) for fingerprint, text in texts)
        most_bytes = self._batching.most_bytes()
        return requests_of(
            texts,
            min(most_bytes, limits.request_bytes or most_bytes),
            limits.inputs or MAX_INPUTS_PER_REQUEST,
            self._batching.prefix_bytes,
        )

    def _narrow(self, batch: Texts, parent: str, *, works: bool) -> _Outcome:
        """Send a batch, or its halves if it fails.

        Args:
            parent: how the batch failed that this one is a half of.
            works: whether the endpoint was seen to work since something failed.
        """
        error = self._send(batch)
        size = _bytes(batch)
        if error is None:
            count = len(batch)
            return _Outcome(whole=True, inputs=count, passed_inputs=count, passed_bytes=size)
        if self._time_outs == MOST_TIME_OUTS and error is self._late:
            return _Outcome(whole=False)
        if len(batch) == 1:
            return _Outcome(whole=self._alone(batch[0], error, parent), inputs=1, size=size)
        if not works and not isinstance(error, InputRefused):
            # Trouble that strikes all is the endpoint's; it is not for us to split anything then.
            self._see_that_it_works()
        middle = half_of_bytes(batch) if isinstance(error, RequestTooLarge) else len(batch) // 2
        halves = [
            self._narrow(half, error.failed_as, works=True)
            for half in (batch[:middle], batch[middle:])
        ]
        whole = all(half.whole for half in halves)
        if not whole:
            for half in halves:
                if half.whole:
                    self._learn(half)
        return _Outcome(
            whole=whole,
            error=error,
            inputs=len(batch),
            size=size,
            passed_inputs=max(half.passed_inputs for half in halves),
            passed_bytes=max(half.passed_bytes for half in halves),
        )

    def _send(self, batch: Texts) -> EnrichError | None:
        """One request; the error, if one of its texts may be the reason for it."""
        waited = self._batching.acquire([text for _, text in batch], self._timeout)
        self._timeout -= waited
        self._leave_to_others(batch)
        texts = [text for _, text in batch]
        if not texts:
            return None
        try:
            answer = self._batching.request(self._caller, texts)
        except RateLimited:
            raise
        except EnrichError as error:
            if error.failed_as == "time-out":
                self._time_outs += 1
                if self._time_outs > MOST_TIME_OUTS:
                    raise
                self._late = error
            if isinstance(error, InputRefused) or error.failed_as:
                return error
            raise
        got = {}
        for (fingerprint, _), vector in zip(batch, answer.vectors, strict=True):
            if vector is None:
                self.results.invalid.add(fingerprint)
            else:
                got[fingerprint] = vector
        self._keep(got)
        self._batching.lone_failures.forget(got)
        self._batching.count_request(self._caller, texts, answer)
        self.results.vectors.update(got)
        self._batching.passed_inputs = max(self._batching.passed_inputs, len(batch))
        self._batching.passed_bytes = max(self._batching.passed_bytes, _bytes(batch))
        if len(batch) >= self._batching.suspected_inputs:
            self._batching.suspected_inputs = 0
        return None

    def _leave_to_others(self, batch: Texts) -> None:
        """Take out of a batch what others sent, or got, before its turn came."""
        mine = self._sends([fingerprint for fingerprint, _ in batch])
        left = [one for one in batch if one[0] not in mine]
        if left:
            self._batching.give_back([text for _, text in left])
            batch[:] = [one for one in batch if one[0] in mine]
            self.results.elsewhere.update(fingerprint for fingerprint, _ in left)

    # -- a text by itself

    def _alone(self, one: tuple[str, str], error: EnrichError, parent: str) -> bool:
        """Find out what becomes of a text that fails by itself; whether it went through now."""
        fingerprint, text = one
        if error.failed_as == "time-out":
            return False
        code = "text_refused"
        if isinstance(error, RequestTooLarge):
            code = "text_too_large"
            cuts = self._batching.cuts
            refused = self._shorten(fingerprint, text, error) if cuts else error
            if refused is None:
                return False
            error = refused
        if not isinstance(error, InputRefused) and error.failed_as != parent:
            # So far it has failed once in this way.
            again = self._send([one])
            if again is None:
                return True
            if again.failed_as != error.failed_as:
                self._see_that_it_works()
                self._defer(fingerprint, f"{told(error.failed_as)}, then {told(again.failed_as)}")
                return False
        self._see_that_it_works()
        if can_pass(error):
            return self._weighed(one, error.failed_as)
        self.results.refused[fingerprint] = code
        return False

    def _weighed(self, one: tuple[str, str], way: str) -> bool:
        """Defer a text that failed in a way that can pass, or refuse it if an earlier run saw the
        same; whether it went through after all."""
        fingerprint, _ = one
        failures = self._batching.lone_failures
        earlier = failures.read(fingerprint)
        again = (
            earlier is not None and earlier.occasion != self._caller.occasion and earlier.way == way
        )
        for _ in range(CONFIRMATIONS if again else 0):
            error = self._send([one])
            if error is None:
                return True
            if error.failed_as != way:
                again = False
                break
            self._see_that_it_works()
        if again:
            self.results.refused[fingerprint] = "text_refused"
        else:
            failures.note(fingerprint, LoneFailure(self._caller.occasion, way))
            self._defer(fingerprint, told(way))
        return False

    def _defer(self, fingerprint: str, ways: str) -> None:
        self.results.invalid.add(fingerprint)
        self.results.reasons[fingerprint] = (
            f"the embeddings API fails for these texts alone ({ways}) and takes others: they are "
            "marked if the next run sees the same"
        )

    def _shorten(self, fingerprint: str, text: str, error: RequestTooLarge) -> EnrichError | None:
        """Cut a text until the model takes it; None if it did, else the last refusal."""
        shorter = text
        refused: EnrichError = error
        while isinstance(refused, RequestTooLarge) and (less := shortened(text, shorter, refused)):
            shorter = less
            answer = self._send([(fingerprint, shorter)])
            if answer is None:
                taken = max(LEAST_TEXT_BYTES, len(shorter.encode()))
                self._lower(EndpointLimits(text_bytes=taken))
                return None
            refused = answer
        return refused

    def _see_that_it_works(self) -> None:
        """Send a harmless text: whatever is refused now as well is not a text's fault.

        Raises:
            Halt, RateLimited, TransientError: the endpoint does not take it.
        """
        try:
            self._batching.probe(self._caller, self._timeout)
        except InputRefused as error:
            raise Halt(
                f"{error}, and even a harmless text: check EMBEDDING_MODEL and OPENAI_BASE_URL"
            ) from None

    # -- what an endpoint takes

    def _learn(self, outcome: _Outcome) -> None:
        """A batch failed and each of its texts went through: there was too much in it."""
        error, batching = outcome.error, self._batching
        if error is None:
            return
        if isinstance(error, InputRefused):
            too_large = isinstance(error, RequestTooLarge)
        else:
            # By chance, perhaps: something has to fail twice.
            if not batching.suspected_inputs or error.failed_as in PASSING:
                batching.suspected_inputs = outcome.inputs
                return
            too_large = True
        inputs, size = outcome.passed_inputs, outcome.passed_bytes
        if too_large and batching.passed_inputs >= outcome.inputs:
            inputs = 0
        elif not too_large or batching.passed_bytes >= outcome.size:
            size = 0
        self._lower(EndpointLimits(inputs=inputs, request_bytes=size))

    def _lower(self, found: EndpointLimits) -> None:
        self._batching.limits.lower(found)
        self._limits = self._limits.lowered(found)


def requests_of(
    texts: Iterable[tuple[str, str]],
    max_bytes: int,
    max_inputs: int = MAX_INPUTS_PER_REQUEST,
    prefix_bytes: int = 0,
) -> list[Texts]:
    """Cut texts, each with a prefix, into requests within the provider's limits, in order."""
    batches = constrained_batches(
        texts,
        max_bytes,
        max_inputs,
        get_len=lambda text: prefix_bytes + len(text[1].encode()),
        strict=False,
    )
    return [list(batch) for batch in batches]


def shortened(text: str, sent: str, refused: RequestTooLarge) -> str:
    """The next shorter form of a text of which `sent` was too long; "" if it is short already."""
    size = len(sent.encode())
    if size <= LEAST_CUT_BYTES:
        return ""
    untold = 0.25 if sent == text else 0.5
    part = refused.fits * CAUTION if refused.fits else untold
    return cut(text, max(LEAST_CUT_BYTES, int(size * part)))


def embed_one(embedder: Embedder, text: str) -> tuple[Embedded, int]:
    """Embed a text outside of any run, cut until the model takes it; the answer, and bytes sent.

    Raises:
        Halt, RateLimited, InputRefused, TransientError: as of the embedder.
    """
    sent = text
    while True:
        try:
            return embedder.embed([sent]), len(sent.encode())
        except RequestTooLarge as error:
            less = shortened(text, sent, error)
            if not less:
                raise
            sent = less


def half_of_bytes(batch: Texts) -> int:
    """Where to cut two texts or more into parts of about equal size, neither empty."""
    total = sum(len(text) for _, text in batch)
    size = 0
    for position, (_, text) in enumerate(batch[:-1]):
        size += len(text)
        if 2 * size >= total:
            return position + 1
    return len(batch) - 1


def _bytes(batch: Texts) -> int:
    return sum(len(text.encode()) for _, text in batch)
