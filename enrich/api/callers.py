"""Who asks: the holder of a key, within its rate and its day's budget."""

# Annotations are read as they stand: FastAPI resolves those of the dependency.
import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Request

from enrich.api.keys import Key
from enrich.api.parts import Parts
from enrich.api.refusals import Refusal, budget_spent, rate_limited
from enrich.errors import RateLimited, ServerUnavailable

#: Where Redis hangs, few look at keys and all others wait for them, at most so long.
ADMIT_SECONDS = 5.0


def caller_of(parts: Parts) -> Callable[..., Awaitable[Key]]:
    """The dependency that lets a request in; the key's name is left for the log's line."""

    async def caller(
        request: Request,
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Key:
        scheme, _, given = (authorization or "").partition(" ")
        key = parts.keys.holder(given.strip() if scheme.lower() == "bearer" else "")
        if key is None:
            raise Refusal(
                401,
                "a known key is needed: Authorization: Bearer …",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        request.state.caller = key.name
        if key.requests_per_minute or key.usd_per_day:
            try:
                async with asyncio.timeout(ADMIT_SECONDS):
                    await asyncio.to_thread(_admit, parts, key)
            except TimeoutError:
                raise ServerUnavailable(
                    "Redis, which knows what keys have used, did not answer in time"
                ) from None
        return key

    return caller


def _admit(parts: Parts, key: Key) -> None:
    """Asks Redis. Raises Refusal: the key's rate or its day's budget is used up."""
    if key.requests_per_minute:
        try:
            parts.admit(key)
        except RateLimited as error:
            limit = str(key.requests_per_minute)
            raise rate_limited(
                f"this key may send {limit} requests a minute",
                error.pause,
                {"x-ratelimit-limit-requests": limit},
            ) from None
    if key.usd_per_day and parts.spent(key.payer) >= key.usd_per_day:
        raise budget_spent(
            f"this key has spent its {key.usd_per_day:g} USD of today; it goes on at 00:00 UTC"
        )
