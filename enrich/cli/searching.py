"""`search`: the ERROR logs nearest in meaning to some words.

The one screen that shows log text, because it is what was asked for.
"""

from __future__ import annotations

from typing import Any

from enrich import assembly
from enrich.asking import embed_one
from enrich.cli import screen
from enrich.errors import InputRefused, TextUnusable, TransientError
from enrich.masking import masker_of
from enrich.settings import Settings
from enrich.text import text_of

#: Columns of a service's name.
MAX_SERVICE = 20


def show(settings: Settings, words: str, index: str | None, k: int, *, as_json: bool) -> int:
    """Embed the words and print the nearest logs. The exit status."""
    try:
        text = text_of({"message": words}, masker_of(settings.enrich_mask))
    except TextUnusable:
        screen.line(screen.err(), "bad", "say what to search for: the words are empty")
        return 2
    try:
        answer, _ = embed_one(assembly.build_embedder(settings), text)
    except InputRefused as error:
        screen.line(screen.err(), "bad", f"{error}: say it in other words")
        return 2
    (vector,) = answer.vectors
    if vector is None:
        raise TransientError(f"{settings.openai_base_url} sent numbers that are no vector")
    insight = assembly.build_store(settings).insight
    hits = insight.nearest(vector.tolist(), k, index)
    if others := insight.of_others(index):
        screen.line(
            screen.err(),
            "warn",
            f"{screen.plural(others, 'log')} with vectors of other models are left out: "
            "`python -m enrich check` names them",
        )
    if as_json:
        screen.print_json(hits)
        return 0
    console = screen.out()
    if not hits:
        where = index or settings.index_expression
        screen.line(console, "warn", f"no log of {where} has a vector yet")
        return 0
    table = screen.table("cosine", "time", "service", "message", numbers=("cosine",))
    rows = [screen.cells(f"{hit['cosine']:.3f}", *_shown(hit)) for hit in hits]
    for row in rows:
        row[2].truncate(MAX_SERVICE, overflow="ellipsis")
    # Cut here: a table short of room would take it from the numbers as well.
    taken = sum(max(cell.cell_len for cell in column) for column in zip(*rows, strict=True))
    taken -= max(row[3].cell_len for row in rows)
    for row in rows:
        row[3].truncate(max(20, console.width - taken - 8), overflow="ellipsis")
        table.add_row(*row)
    screen.put(console, table)
    return 0


def _shown(hit: dict[str, Any]) -> tuple[str, str, str]:
    time = str(hit.get("timestamp") or "")[:19].replace("T", " ")
    service = screen.first_line(hit.get("service_name") or "")
    return time, service, screen.first_line(hit.get("message") or "")
