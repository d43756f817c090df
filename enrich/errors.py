"""What can go wrong, named by who can fix it: time, an operator, or nobody.

Adapters translate their driver's exceptions into these, once, at the edge; everything inside
decides by class. Messages are one sentence for an operator and never carry log text, vectors or
secrets. All of them survive pickling, because Celery moves them between processes.
"""

from __future__ import annotations

from typing import TypeVar

_Kind = TypeVar("_Kind", bound=BaseException)


class EnrichError(Exception):
    """Base of all expected failures; `str()` is one sentence fit for an operator.

    Attributes:
        failed_as: for a request to the embeddings API that one of its texts may have made fail: in
            which way it failed ("500", "cut"); else "".
    """

    failed_as: str = ""


class SettingsError(EnrichError):
    """A setting is missing or wrong. Nothing starts until it is changed."""


class TransientError(EnrichError):
    """Trouble that passes: time-out, lost connection, 5xx, overload. The chunk is tried again."""


class IndexInTrouble(TransientError):
    """Single indices refuse writes for now, or cannot be read; others need not wait for them."""


class ServerUnavailable(TransientError):
    """A server could not be reached or did not answer in time."""


class NotYet(TransientError):
    """Another worker is at what this work has to wait for; nothing failed.

    Attributes:
        seconds: before it is worth while to look again.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class IndexBeingTried(NotYet):
    """Another worker is trying single indices; other indices need not wait for that."""


class NotHere(TransientError):
    """This process has other settings than the run; another worker has them and takes the work."""


#: A pause asked for by 429 without Retry-After, in seconds.
DEFAULT_PAUSE_SECONDS = 5.0


class RateLimited(TransientError):
    """The provider asked for a pause.

    Attributes:
        retry_after: seconds to wait, as the provider said it, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    @property
    def pause(self) -> float:
        """Seconds to wait, whether the provider said how many or not."""
        return DEFAULT_PAUSE_SECONDS if self.retry_after is None else self.retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class NoPermit(RateLimited):
    """Our own quota has nothing left for now, or others go first; no server was asked."""


class Halt(EnrichError):
    """Nothing of this run can go on until someone fixes it: key, quota, model, password."""


class AccessRefused(Halt):
    """A server answered 401 or 403."""


class RunClosed(EnrichError):
    """The run that this work belongs to is over or unknown; its documents will be found again."""


class InputRefused(EnrichError):
    """The API refused a request for what is in it (400, 422); some input is the culprit."""


class RequestTooLarge(InputRefused):
    """The request, or a text of it, has too many tokens or bytes (413, or words about tokens).

    Attributes:
        fits: which part of the longest text fits, as the refusal says it (0 to 1), or None.
    """

    fits: float | None = None


class TextUnusable(EnrichError):
    """A log has no text that could be embedded.

    Attributes:
        code: what is wrong, in snake case; stored on the document.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def package_missing(needs: str, extra: str) -> SettingsError:
    """Packages that not every installation has.

    Args:
        needs: such as "OPENSEARCH_AUTH=aws needs boto3".
        extra: of pyproject.toml. This project is on no index, where its name may be another's.
    """
    return SettingsError(
        f"{needs}: in a checkout `pip install -r requirements-extras.lock`, or "
        f"`pip install '.[{extra}]'`"
    )


def cause_of(error: BaseException, kind: type[_Kind]) -> _Kind | None:
    """The first of a kind behind an error: clients wrap what a socket said, some several times."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


def place_of(error: BaseException) -> str:
    """Where an error was raised, as `module:function:line`; its text may quote a log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    module = trace.tb_frame.f_globals.get("__name__", "?")
    return f"{module}:{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
