"""`template`: the templates for indices and data streams to come, printed or put.

What is put is looked at again: OpenSearch is asked what the next indices will have, and those that
stay out are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from enrich import wiring
from enrich.cli import screen
from enrich.errors import EnrichError
from enrich.log_store import LogStore, RequestRefused, index_template
from enrich.log_store.new_indices import Outlook
from enrich.log_store.refusals import RightMissing
from enrich.log_store.templates import left_out, objection, stream_template, taken_over
from enrich.models import stream_of
from enrich.settings import Settings


def show(settings: Settings, *, data_streams: bool) -> None:
    """Print the template as JSON; what it does not hold for goes beside it."""
    try:
        indices: list[str] = wiring.build_store(settings).stats.names()
    except EnrichError as error:
        indices = []
        screen.line(screen.err(), "warn", f"only what the settings name is covered: {error}")
    plain, streams = _made(settings, indices)
    if data_streams:
        if streams is None:
            raise EnrichError(
                "no pattern of ENRICH_INDEX_PATTERN names the indices behind a data stream: add "
                "one such as .ds-shop_*"
            )
        screen.print_json(streams)
        return
    screen.print_json(plain or streams)
    for sentence in left_out(settings.enrich_index_pattern, streams):
        screen.line(screen.err(), "warn", sentence)
    if plain and streams:
        screen.facts(
            screen.err(), "the one for data streams: `python -m enrich template --data-streams`"
        )


def put(settings: Settings, name: str) -> None:
    """Put the templates, and say which indices stay out.

    Raises EnrichError where another template stands in the way; nothing was changed then.
    """
    store = wiring.build_store(settings)
    indices = store.stats.names()
    plain, streams = _made(settings, indices)
    wanted = [(n, body) for n, body in ((name, plain), (f"{name}-streams", streams)) if body]
    others = store.templates.others(*(own for own, _ in wanted))
    for _, body in wanted:
        if why := objection(body, others, {stream_of(index) for index in indices}):
            raise EnrichError(why)
    for own, body in wanted:
        try:
            store.templates.put(own, body)
        except RequestRefused as error:
            raise EnrichError(
                f"OpenSearch refused the template ({error.error_type}): check ENRICH_INDEX_PATTERN"
            ) from None
        kind = "data streams" if "data_stream" in body else "indices"
        screen.line(
            screen.out(),
            "ok",
            f"{own} is there: it holds for {kind} made from now on that match "
            f"{_patterns_told(settings, body)}",
        )
    for _, body in wanted:
        for sentence in taken_over(body, others):
            screen.line(screen.out(), "warn", sentence)
    for sentence in left_out(settings.enrich_index_pattern, streams):
        screen.line(screen.out(), "warn", sentence)
    for mark, sentence in outlook_lines(store, indices):
        screen.line(screen.out(), mark, sentence)


def outlook_lines(store: LogStore, indices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the next indices will have, each with its mark."""
    try:
        looked = store.new_indices.look(indices)
    except RightMissing:
        yield (
            "ok",
            "what the next indices will have is not looked at: that needs the role in "
            "deploy/opensearch-role-template.json",
        )
        return
    yield from map(_told, looked)


def _told(outlook: Outlook) -> tuple[str, str]:
    names = screen.few(outlook.names)
    if not outlook.fault:
        vector = "log_vector" if outlook.has_vector else "the first run adds log_vector"
        return "ok", f"next: {names} will have index.knn, and {vector}"
    if not outlook.template:
        mend = "no template holds for it: `python -m enrich template --apply`"
    else:
        mend = (
            f"the template {outlook.template} holds for it: add to that what "
            "`python -m enrich template` prints"
        )
    return "warn", f"next: {names} stays out, since {outlook.fault}: {mend}"


def _made(
    settings: Settings, indices: Sequence[str]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    dimensions, schema = settings.embedding_dimensions, settings.log_schema
    patterns = settings.enrich_index_pattern
    plain = index_template(dimensions, patterns, schema, indices)
    return (
        plain if plain["index_patterns"] else None,
        stream_template(dimensions, patterns, schema),
    )


def _patterns_told(settings: Settings, body: dict[str, Any]) -> str:
    """The patterns of a template, those that differ in their first character by one of them."""
    told: dict[str, None] = {}
    wide = [p.lstrip("*") for p in settings.enrich_index_pattern if p.startswith("*")]
    for pattern in body["index_patterns"]:
        rest = next((rest for rest in wide if pattern[1:] == f"*{rest}"), None)
        told[pattern if rest is None else f"*{rest} (without a dot at its beginning)"] = None
    return ", ".join(told)
