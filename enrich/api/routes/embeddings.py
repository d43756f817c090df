"""`/api/v1/embedding` and `/api/v1/embedding/batch`: vectors of texts and of logs."""

# Annotations are read as they stand: those of routes name what is only known in a function.
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from enrich.api.callers import caller_of
from enrich.api.keys import Key
from enrich.api.models import BatchIn, BatchItem, BatchOut, EmbeddingOut, Reason, TextIn
from enrich.api.parts import Parts, refusal_of_text, savings
from enrich.api.refusals import PROBLEMS, Refusal, logged_refusal_of
from enrich.api.vectors import Answer, Saved
from enrich.errors import TextUnusable

CACHE_HEADER = "`no-store`: buy the vectors, keep none of them."

CacheHeader = Annotated[str | None, Header(description=CACHE_HEADER, examples=["no-store"])]


def stores(x_enrich_cache: str | None) -> bool:
    """Whether a caller lets its vectors be kept."""
    return "no-store" not in (x_enrich_cache or "").lower()


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", tags=["embeddings"], responses=PROBLEMS)
    caller = caller_of(parts)

    @routes.post("/embedding", summary="The vector of one text")
    async def embedding(
        given: TextIn,
        response: Response,
        key: Annotated[Key, Depends(caller)],
        x_enrich_cache: CacheHeader = None,
    ) -> EmbeddingOut:
        try:
            text = parts.text_of(given.text)
        except TextUnusable:
            raise Refusal(422, "text: there is nothing in it to embed") from None
        answer = await parts.vectors.of([text], key.payer, store=stores(x_enrich_cache))
        (resolved,) = answer.results
        response.headers.update(savings(answer.saved))
        if resolved.vector is None:
            raise refusal_of_text(resolved)
        return EmbeddingOut(embedding=resolved.vector.tolist(), dimension=len(resolved.vector))

    @routes.post(
        "/embedding/batch",
        summary="The vectors of up to 1,000 logs",
        response_model=BatchOut,
        responses={207: {"model": BatchOut, "description": "Some logs have a reason instead."}},
    )
    async def batch(
        given: BatchIn,
        key: Annotated[Key, Depends(caller)],
        x_enrich_cache: CacheHeader = None,
    ) -> Response:
        texts: list[str] = []
        places: list[int] = []
        items = [BatchItem(log_id=one.log_id) for one in given.logs]
        for place, one in enumerate(given.logs):
            try:
                texts.append(parts.text_of(one.message))
                places.append(place)
            except TextUnusable as error:
                items[place].error = Reason(code=error.code, message="the message has no text")
        answer = (
            await parts.vectors.each(texts, key.payer, store=stores(x_enrich_cache))
            if texts
            else Answer(results=[], saved=Saved())
        )
        if answer.errors and all(one.vector is None for one in answer.results):
            raise next(iter(answer.errors.values()))
        refusals = {one: logged_refusal_of(one) for one in set(answer.errors.values())}
        for number, (place, resolved) in enumerate(zip(places, answer.results, strict=True)):
            if resolved.vector is not None:
                items[place].embedding = resolved.vector.tolist()
                continue
            trouble = answer.errors.get(number)
            refusal = refusal_of_text(resolved) if trouble is None else refusals[trouble]
            code = refusal.code or ("deferred" if refusal.status == 503 else "refused")
            items[place].error = Reason(code=code, message=refusal.sentence)
        count = sum(item.embedding is not None for item in items)
        body = BatchOut(embeddings=items, count=count, model=parts.model)
        return Response(
            body.model_dump_json(exclude_none=True),
            200 if count == len(items) else 207,
            savings(answer.saved),
            "application/json",
        )

    return routes
