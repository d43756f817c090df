"""`/api/v1/search` and `/api/v1/groups`: ERROR logs by what they say."""

# Annotations are read as they stand: those of routes name what is only known in a function.
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from enrich.api.callers import caller_of
from enrich.api.groups import grouped
from enrich.api.keys import Key
from enrich.api.models import GroupsOut, HitOut, SearchOut
from enrich.api.parts import Parts, refusal_of_text, savings
from enrich.api.refusals import PROBLEMS, Refusal
from enrich.errors import TextUnusable

#: Of the words: at four bytes each, written with percent signs, they and the longest list of
#: indices fit into the 64 KB that a URL may have.
MOST_CHARACTERS = 4_000

Index = Annotated[
    str | None,
    Query(
        max_length=1000,
        pattern=r"^[^-_+\s\"\\/?#<>|%][^\s\"\\/?#<>|%]*$",
        description="Names or patterns of indices, separated by commas.",
    ),
]


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", tags=["search"], responses=PROBLEMS)
    caller = caller_of(parts)

    @routes.get("/search", summary="The ERROR logs nearest in meaning to some words")
    async def search(
        response: Response,
        key: Annotated[Key, Depends(caller)],
        q: Annotated[
            str, Query(min_length=1, max_length=MOST_CHARACTERS, examples=["database is locked"])
        ],
        k: Annotated[int, Query(ge=1, le=100)] = 10,
        index: Index = None,
    ) -> SearchOut:
        try:
            text = parts.text_of(q)
        except TextUnusable:
            raise Refusal(422, "q: there is nothing in it to search for") from None
        answer = await parts.word_vectors.of([text], key.payer)
        response.headers.update(savings(answer.saved))
        (resolved,) = answer.results
        if resolved.vector is None:
            raise refusal_of_text(resolved)
        vector = resolved.vector.tolist()
        found = await parts.searched(lambda: parts.stats.nearest(vector, k, index))
        hits = [
            HitOut(
                cosine=hit["cosine"],
                index=hit["index"],
                id=hit["id"],
                logs=hit["logs"],
                indices=list(hit["indices"]),
                message=_told(hit.get("message")),
                service_name=_told(hit.get("service_name")),
                timestamp=_told(hit.get("timestamp")),
            )
            for hit in found.value
        ]
        left_out = [] if found.gaps.whole else [found.gaps.sentence("searched")]
        return SearchOut(hits=hits, left_out=left_out)

    @routes.get("/groups", summary="What most ERROR logs say, and how many do")
    async def groups(
        key: Annotated[Key, Depends(caller)],
        k: Annotated[int, Query(ge=1, le=100)] = 10,
        similarity: Annotated[
            float,
            Query(
                ge=0.5,
                le=1,
                description="Texts whose vectors have this cosine make one group; 1: each its own.",
            ),
        ] = 0.9,
        index: Index = None,
    ) -> GroupsOut:
        return await parts.searched(
            lambda: grouped(parts.frequent_texts.most(index), k, similarity)
        )

    return routes


def _told(value: Any) -> str | None:
    return None if value is None else str(value)
