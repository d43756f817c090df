"""`search`: the ERROR logs nearest in meaning to some words.

The one screen that shows log text, because it is what was asked for.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from rich.text import Text

from enrich import wiring
from enrich.cli import screen
from enrich.cli.failures import no_such
from enrich.cli.screen import plural
from enrich.errors import InputRefused, TextUnusable
from enrich.settings import Settings, rewrite_of
from enrich.text.extract import text_of

#: Whose money it is, beside the projects and the keys: no index can be called so.
PAYER = "cli:search"

#: Columns of a service's name.
MAX_SERVICE = 20


def show(settings: Settings, words: str, index: str | None, k: int, *, as_json: bool) -> int:
    """Embed the words and print the nearest logs. The exit status."""
    try:
        text = text_of({"message": words}, rewrite_of(settings))
    except TextUnusable:
        screen.line(screen.err(), "bad", "say what to search for: the words are empty")
        return 2
    try:
        with closing(wiring.build_word_vectors(settings, PAYER)) as vectors:
            vector = vectors.of(text)
    except InputRefused as error:
        screen.line(screen.err(), "bad", f"{error}: say it in other words")
        return 2
    stats = wiring.build_store(settings).stats
    found, others = stats.nearest(vector.tolist(), k, index), stats.of_others(index)
    hits, gaps = found.value, found.gaps | others.gaps
    if others.value:
        number = gaps.at_least(plural(others.value, "log"))
        screen.line(
            screen.err(),
            "warn",
            f"{number} with vectors of other models are left out: "
            "`python -m enrich check` names them",
        )
    if not gaps.whole:
        screen.line(screen.err(), "bad", gaps.sentence("searched"))
    status = 0 if gaps.whole else 3
    if as_json and (hits or not index):
        screen.print_json(hits)
        return status
    console = screen.out()
    if not hits:
        store = wiring.build_store(settings)
        if index and not store.stats.matching(index):
            screen.line(screen.err(), "bad", no_such(store, index))
            return 2
        where = index or settings.index_expression
        if as_json:
            screen.print_json(hits)
        else:
            screen.line(console, "warn", f"no log of {where} has a vector yet")
        return status
    for hit in hits:
        time, service, message = _shown(hit)
        logs = gaps.at_least(plural(int(hit["logs"]), "log"))
        if len(hit["indices"]) > 1:
            logs += f" in {plural(len(hit['indices']), 'index')}"
        facts = "  ".join(part for part in (time, service[:MAX_SERVICE], logs) if part)
        head = Text(f"  {hit['cosine']:.3f}  ", style="bold") + Text(facts)
        body = Text(f"         {message}")
        place = Text(
            f"         {screen.one_line(hit['index'])} {screen.one_line(hit['id'])}", "dim"
        )
        for line in (head, body):
            if console.is_terminal:
                line.truncate(console.width, overflow="ellipsis")
            console.print(line, soft_wrap=True)
        # Whole: it is there to be copied.
        console.print(place, soft_wrap=True)
    return status


def _shown(hit: dict[str, Any]) -> tuple[str, str, str]:
    time = str(hit.get("timestamp") or "")[:19].replace("T", " ")
    service = screen.first_line(hit.get("service_name") or "")
    return time, service, screen.first_line(hit.get("message") or "")
