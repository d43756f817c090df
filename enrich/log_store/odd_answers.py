"""What happens where an answer is valid JSON and of no shape that OpenSearch sends.

A proxy, a search pipeline or another version may answer anything. Code that takes values out of an
answer raises what Python raises then; outside it is one error with one sentence.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from enrich.errors import TransientError, place_of

log = logging.getLogger(__name__)

C = TypeVar("C", bound=type[Any])

#: What taking an unexpected value apart raises.
MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def translates_odd_answers(cls: C) -> C:
    """A class whose public methods raise TransientError where an answer has another shape."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and not name.startswith("_"):
            setattr(cls, name, _translating(method))
    return cls


def _translating(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def translated(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except MISSHAPEN as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is None:
                # Called wrongly: no answer has been asked for.
                raise
            # Its text may quote the answer.
            kind, place = type(error).__name__, place_of(error)
        log.error("an answer of OpenSearch has a shape that was not foreseen (%s, %s)", kind, place)
        raise TransientError(
            f"OpenSearch's answer has another shape than it should ({kind}): "
            "is there a proxy before it, or is it another product?"
        )

    return translated
