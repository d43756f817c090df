"""`check`: the embeddings API: how it is asked, what it answers to some logs, what a run costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from enrich import wiring
from enrich.cli import screen
from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.plan import sentence, telling
from enrich.embedding.batching import HARMLESS_TEXT, embed_one
from enrich.embedding.client import Embedder
from enrich.embedding.endpoint import Endpoint, Purpose
from enrich.errors import InputRefused, TextUnusable
from enrich.settings import Settings, rewrite_of, without_password
from enrich.text.extract import text_of

SAMPLES = 3

#: Embedded where no log is pending.
PHRASES = (
    "connection refused by upstream",
    "java.lang.OutOfMemoryError: Java heap space",
    "disk is full, cannot write checkpoint",
)


def look_at(settings: Settings, findings: Findings, seen: Seen) -> None:
    embedder = wiring.build_embedder(settings)
    tokens = 0
    for text in endpoint_lines(settings):
        findings.ok(text)
    texts, what = _samples(settings, seen)
    for text in texts:
        began = time.perf_counter()
        whole = len(text.encode())
        try:
            answer, sent = embed_one(embedder, text)
        except InputRefused as error:
            _look_at_harmless(settings, findings, embedder, error)
            continue
        took = time.perf_counter() - began
        (vector,) = answer.vectors
        if vector is None:
            findings.bad(f"{settings.openai_base_url} sent numbers that are no vector", 3)
            continue
        tokens += answer.tokens
        findings.ok(
            f"{what} of {len(text):,} characters: {settings.embedding_model}, "
            f"{vector.size} dimensions, {took * 1000:,.0f} ms, {answer.tokens:,} tokens"
            + (f"; cut to {sent:,} bytes, as the model takes" if sent < whole else "")
        )
    if tokens and seen.pending and settings.price_per_million_tokens:
        each = tokens / len(texts) * settings.price_per_million_tokens / 1e6
        seen.cost = each * seen.pending
        findings.ok(
            f"at this size {seen.pending_told} logs cost about {screen.dollars(seen.cost)}, "
            "less where texts repeat"
        )
    if Endpoint.of(settings, Purpose.QUERY).form != Endpoint.of(settings).form:
        _look_at_query(settings, findings)
    if seen.pending:
        _plan(settings, findings, seen)


def _plan(settings: Settings, findings: Findings, seen: Seen) -> None:
    """The sum of the backlog, as `plan` has it."""
    planner = wiring.build_planner(settings)
    with telling(findings.console) as tell:
        made = planner.plan(planner.backlog(), tell)
    if made.cost.usd is not None:
        seen.cost = made.cost.usd
    findings.ok(f"the backlog: {sentence(made)}; `python -m enrich plan` says what that rests on")
    above = settings.enrich_confirm_above_usd
    if above and (made.cost.usd or 0) > max(above, planner.parts.ledger.confirmed.left_usd()):
        findings.warn(
            f"that is more than ENRICH_CONFIRM_ABOVE_USD ({screen.dollars(above)}): no run begins "
            "before `python -m enrich confirm`"
        )


def _look_at_query(settings: Settings, findings: Findings) -> None:
    """Where words that are searched go out in another way than logs: whether that is taken."""
    embedder = wiring.build_query_embedder(settings)
    try:
        answer, _ = embed_one(embedder, PHRASES[0])
    except InputRefused as error:
        findings.bad(f"{error}, of a query: check ENRICH_QUERY_PREFIX and ENRICH_QUERY_EXTRA_BODY")
        return
    (vector,) = answer.vectors
    if vector is None:
        findings.bad("a query was answered with numbers that are no vector", 3)
    else:
        findings.ok(f"a query, sent as `search` sends it: {vector.size} dimensions")


def _look_at_harmless(
    settings: Settings, findings: Findings, embedder: Embedder, refused: InputRefused
) -> None:
    """Whether the endpoint refuses everything, or a text of its own."""
    try:
        embedder.embed([HARMLESS_TEXT])
    except InputRefused:
        findings.bad(f"{refused}: check EMBEDDING_MODEL and OPENAI_BASE_URL")
    else:
        findings.warn(
            f"{refused}, and takes a harmless one: a log refused like this is marked failed"
        )


def _samples(settings: Settings, seen: Seen) -> tuple[Sequence[str], str]:
    if not seen.pending:
        return PHRASES, "a phrase"
    texts = []
    mask = rewrite_of(settings)
    for message in wiring.build_store(settings).stats.sample(SAMPLES):
        try:
            texts.append(text_of({"message": message}, mask))
        except TextUnusable:
            continue
    return (texts, "a log") if texts else (PHRASES, "a phrase")


def endpoint_lines(settings: Settings) -> Iterator[str]:
    """How the endpoint is asked: the form of its address, and what goes with texts."""
    yield Endpoint.of(settings).told()
    if proxy := settings.openai_proxy.get_secret_value():
        yield "without a proxy" if proxy == "none" else f"through {without_password(proxy)}"
    if headers := settings.redacted()["OPENAI_EXTRA_HEADERS"]:
        yield f"with headers {headers}"
    for purpose, what in ((Purpose.DOCUMENT, "logs"), (Purpose.QUERY, "queries")):
        endpoint = Endpoint.of(settings, purpose)
        told = []
        if endpoint.prefix:
            told.append(f"with {json.dumps(endpoint.prefix, ensure_ascii=False)} before each")
        if endpoint.extra:
            told.append(f"with {json.dumps(endpoint.extra, ensure_ascii=False)}")
        if told:
            yield f"{what} are sent {' and '.join(told)}"
