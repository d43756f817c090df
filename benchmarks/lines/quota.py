"""Line 4: how much of an enforced quota is used, and how many requests are refused.

The server's quota is full at first and refills evenly. What is used is counted once a whole
minute's quota has been served, so that what was saved up at first is no part of it, and from one
answer to a later one, so that the size of a request, a twentieth of that, does not blur the figure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.corpus import fresh, make_corpus
from benchmarks.product import Product
from benchmarks.rounds import Figure, at_least, at_most
from benchmarks.stage import Stage

REQUESTS_PER_MINUTE = 3_000
TOKENS_PER_MINUTE = 1_000_000

_WINDOW_SECONDS = 90.0
#: Until as much as was saved up must have been served.
_PATIENCE = 120.0
#: More texts than the window can take, what was saved up included.
_LOGS = 8_000


@dataclass(frozen=True, slots=True)
class Look:
    """What the API had served at a time."""

    at: float
    requests: int
    tokens: int
    refused: int


def measure(stage: Stage) -> list[Figure]:
    figures = []
    for workers in (1, 4):
        stage.say(f"quota: {workers} worker{'s' if workers > 1 else ''}")
        figures += _with(stage, workers)
    return figures


def _with(stage: Stage, workers: int) -> list[Figure]:
    corpus = make_corpus(_LOGS, distinct_share=1.0)
    with stage.product(workers=workers) as product:
        stage.warm(product, 400)
        fresh(stage.cluster, corpus)
        stage.api.reset(
            latency_ms=50,
            requests_per_minute=REQUESTS_PER_MINUTE,
            tokens_per_minute=TOKENS_PER_MINUTE,
        )
        looks = _watch(stage, product)
    used = used_share(looks)
    refused = looks[-1].refused / max(1, looks[-1].requests)
    name = f"{workers} worker{'s' if workers > 1 else ''}"
    stage.data.setdefault("quota", {})[str(workers)] = {
        "looks": [
            (look.at - looks[0].at, look.requests, look.tokens, look.refused) for look in looks
        ],
        "used": used,
    }
    return [
        at_least("quota", f"used of the binding one, {name}", 100 * used, 95, "%"),
        # What was saved up at first is there for a while, so that nothing refuses one too many.
        at_most("quota", f"used, at most, {name}", 100 * used, 102, "%"),
        at_most(
            "quota",
            f"refused, {name}",
            100 * refused,
            1,
            "%",
            f"{looks[-1].refused} of {looks[-1].requests} requests",
        ),
    ]


def _watch(stage: Stage, product: Product) -> list[Look]:
    """Looks at the API from the first answer until the end of the window that counts."""
    looks: list[Look] = []
    product.begin()
    counting_since = 0.0
    while not counting_since or time.monotonic() - counting_since < _WINDOW_SECONDS:
        seen = stage.api.counts()
        look = Look(time.monotonic(), seen["requests"], seen["tokens"], seen["refused"])
        if look.tokens:
            looks.append(look)
            if not counting_since and (
                look.tokens >= TOKENS_PER_MINUTE
                or look.requests >= REQUESTS_PER_MINUTE
                or look.at - looks[0].at > _PATIENCE
            ):
                counting_since = look.at
        time.sleep(0.05)
    product.end_beat()
    return looks


def used_share(looks: list[Look]) -> float:
    """Of the quota that binds, the share that was used.

    From the first answer after a minute's quota was served to the last one: tokens (or requests)
    that were served in between, by what refilled in between.
    """
    start = next(
        (
            n
            for n, look in enumerate(looks)
            if look.tokens >= TOKENS_PER_MINUTE or look.requests >= REQUESTS_PER_MINUTE
        ),
        len(looks) - 1,
    )
    steps = [
        look
        for before, look in zip(looks[start:], looks[start + 1 :], strict=False)
        if look.tokens > before.tokens
    ]
    if len(steps) < 2:
        return 0.0
    first, last = steps[0], steps[-1]
    minutes = (last.at - first.at) / 60
    tokens = (last.tokens - first.tokens) / (minutes * TOKENS_PER_MINUTE)
    served = (last.requests - last.refused) - (first.requests - first.refused)
    return max(tokens, served / (minutes * REQUESTS_PER_MINUTE))
