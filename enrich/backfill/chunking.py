"""Who travels together: a page of found logs is cut into chunks. Pure.

Logs with the same text go into the same chunk, so that their vector is fetched once and written
side by side; the order of the page is kept, so that what was fair in the page stays fair.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from enrich.models import MAX_CHUNK_BYTES, MAX_CHUNK_DOCUMENTS, Reference


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A log as the finder sees it."""

    reference: Reference
    #: Fingerprint of the text; for a log without usable text, any value of its own.
    fingerprint: str
    #: Of its source, in bytes, about.
    size: int


def cut_chunks(
    page: Sequence[Found],
    *,
    texts: int,
    documents: int = MAX_CHUNK_DOCUMENTS,
    size: int = MAX_CHUNK_BYTES,
) -> list[list[Found]]:
    """Cut a page into chunks of at most `texts` distinct texts, `documents` logs, `size` bytes.

    A text shared by more logs than a chunk holds is spread over several chunks; a log larger than
    `size` travels alone.
    """
    groups: dict[str, list[Found]] = {}
    for found in page:
        groups.setdefault(found.fingerprint, []).append(found)

    chunks: list[list[Found]] = []
    open_chunk: list[Found] = []
    open_texts = open_size = 0
    for group in groups.values():
        new_text = 1
        for found in group:
            if open_chunk and (
                open_texts + new_text > texts
                or len(open_chunk) + 1 > documents
                or open_size + found.size > size
            ):
                chunks.append(open_chunk)
                open_chunk, open_texts, open_size, new_text = [], 0, 0, 1
            open_chunk.append(found)
            open_size += found.size
            open_texts += new_text
            new_text = 0
    if open_chunk:
        chunks.append(open_chunk)
    return chunks


def fit_page(
    page: Sequence[Found], *, slots: int, texts: int
) -> tuple[Sequence[Found], list[list[Found]]]:
    """The longest prefix (by halving what is too much) whose chunks fit into `slots`, and those.

    Cutting the page rather than its chunks leaves no hole behind a cursor.
    """
    while True:
        chunks = cut_chunks(page, texts=texts)
        if len(chunks) <= slots or len(page) <= 1:
            return page, chunks
        page = page[: max(1, len(page) * slots // len(chunks))]
