"""Rows of the chaos matrix about embeddings services: how they answer, ration and disobey.

The plain faults of single answers are in the matrix itself; here are the rows that need more than
one fault, or a service that behaves otherwise for the whole drain.
"""

from __future__ import annotations

from typing import Any

from tests.chaos.matrix import HTML, IN_FLIGHT, api, one_text, row
from tests.chaos.world import BANK, PATIENCE, PROCESSES, SHOP, Stuck, World

TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens, however you requested "
        "9000 tokens (9000 in your prompt; 0 for the completion).",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
    }
}

api("502_html", "502 with an HTML page", {**HTML, "status": 502})
api(
    "400_tokens",
    "400 on the tokens of two requests; their halves are taken",
    {"kind": "status", "status": 400, "times": 2, "body": TOO_LONG},
)
api(
    "trickle_for_ever",
    "a trickle so slow that only the time limit ends it",
    {"kind": "trickle", "times": 2, "seconds": 15},
    paid=2,
)


@row("api", "a service that answers lists of numbers though base64 was asked for")
def api_float(w: World) -> None:
    w.api.set(base64_support="ignored")
    w.start()
    w.under_way()


@row("api", "a storm: every second request refused with 429, some with a length, for a while")
def api_429_storm(w: World) -> None:
    def limited(after: int, **headers: str) -> dict[str, Any]:
        return {"kind": "status", "status": 429, "after": after, "headers": headers}

    w.api.faults(
        *(limited(n, **({"retry-after": "1"} if n % 3 else {})) for n in range(2, 14, 2)),
    )
    w.start()
    w.until(lambda: not w.api.seen["strikes_left"], "all refusals were given", PATIENCE)


@row("api", "a service that enforces its limits of requests and tokens, and tells them")
def api_rationed(w: World) -> None:
    w.api.set(requests_per_minute=120, tokens_per_minute=12_000, burst_seconds=6.0)
    w.start()
    w.until(lambda: not w.checker.owed(w.truth), "the backlog is empty", PATIENCE)
    # Told its limits, the product keeps to them; before the first answer it cannot know them.
    if (refused := w.api.counts()["refused"]) > PROCESSES:
        raise Stuck(f"{refused} requests were refused by a service that tells its limits")


@row("api", "a service that ignores `dimensions`; then it is mended")
def api_dimensions_ignored(w: World) -> None:
    w.api.set(dimensions_ignored=True)
    w.start()
    w.until(w.halted, "the run was halted")
    reasons = [
        (w.redis.hget(f"{w.prefix}run:{run.decode()}", "halt_reason") or b"").decode()
        for run in w.redis.lrange(w.prefix + "runs", 0, -1)
    ]
    if not any("3072 dimensions, not 1536: set EMBEDDING_DIMENSIONS" in told for told in reasons):
        raise Stuck(f"no run says which dimensions it got: {reasons}")
    marked = {
        "bool": {
            "filter": [{"exists": {"field": "ai_enrichment_status"}}],
            "must_not": [{"term": {"ai_enrichment_error": "message_empty"}}],
        }
    }
    if w.search.count(f"{SHOP},{BANK}", marked):
        raise Stuck("something was stored of answers that have another dimension")
    w.api.set(dimensions_ignored=False)
    # The answers in flight when the run halted, and a probe for each halted run after it.
    w.truth.cut_inputs += IN_FLIGHT + 3


def for_one_text(status: int, body: Any, told: str) -> None:
    """A row whose endpoint answers so for one text, from the first request on."""

    def harm(w: World) -> None:
        one_text(w, {"kind": "status", "status": status, "body": body})

    harm.__name__ = f"api_{status}_for_one_text"
    row("api", f"{told} for one text")(harm)


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


BLOCKED = (
    "<html><head><title>Attention Required!</title></head><h1>You have been blocked</h1></html>"
)

for_one_text(400, _error("'$.input' is invalid.", "invalid_request_error"), "400")
for_one_text(403, BLOCKED, "403 of a firewall")
for_one_text(424, {"message": "Inference failed", "type": "Backend"}, "424")
for_one_text(500, _error("json: unsupported value: NaN", "api_error"), "500")
for_one_text(
    200, {"error": {"message": "Provider returned error", "code": 400}}, "200 and an error"
)


@row("api", "the endpoint turns to 400 for everything in the middle: a budget is exceeded")
def api_budget(w: World) -> None:
    body = _error(
        "Budget has been exceeded! Current cost: 10.01, Max budget: 10.0", "budget_exceeded"
    )
    w.api.faults({"kind": "status", "status": 400, "body": body, "after": 4, "times": 40})
    w.start()
    w.until(w.halted, "the run was halted")
    mended(w, "the quota is exhausted")


@row("api", "a proxy answers for the API: 403, 407 and 502 with its pages; then it is mended")
def api_proxy_answers(w: World) -> None:
    page = "<html><head><title>Forbidden</title></head><body>squid</body></html>"

    def answered(status: int, times: int) -> dict[str, Any]:
        return {"kind": "status", "status": status, "body": page, "after": 3, "times": times}

    w.api.faults(answered(502, 4), answered(403, 30), answered(407, 30))
    w.start()
    w.until(w.halted, "the run was halted")
    mended(w, "the proxy before the embeddings API")


def mended(w: World, reason: str) -> None:
    """Nothing was marked when the run halted, and for the right reason; now all goes well again."""
    reasons = [
        (w.redis.hget(f"{w.prefix}run:{run.decode()}", "halt_reason") or b"").decode()
        for run in w.redis.lrange(w.prefix + "runs", 0, -1)
    ]
    if not any(reason in told for told in reasons):
        raise Stuck(f"no run says that {reason}: {reasons}")
    marked = {"term": {"ai_enrichment_error": "text_refused"}}
    if w.search.count(f"{SHOP},{BANK}", marked):
        raise Stuck("healthy logs were marked")
    w.api.heal()
    # The answers in flight when the run halted, and a probe for each halted run after it.
    w.truth.cut_inputs += IN_FLIGHT + 3
