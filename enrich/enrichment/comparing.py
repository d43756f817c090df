"""What the guard of the vector space works with: logs of OpenSearch, digests and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from enrich.embedding.endpoint import Endpoint
from enrich.embedding.locations import VectorLocation
from enrich.embedding.resolver import Resolver
from enrich.embedding.space_guard import Sample, Space, SpaceGuard
from enrich.enrichment.run_usage import RunUsage
from enrich.enrichment.stored_vectors import text_now
from enrich.errors import AccessRefused, TransientError
from enrich.ledger import Ledger
from enrich.ledger.deployment import Configuration
from enrich.log_store import RequestRefused, StoredVector
from enrich.log_store.interfaces import RunStore
from enrich.models import project_of
from enrich.settings import Settings, rewrite_of
from enrich.text.extract import fingerprint
from enrich.vectors import Vector

log = logging.getLogger(__name__)

#: Digests that are looked up for a few whose log still is as it was.
MOST_PLACES = 50


class Locations(Protocol):
    """Tells where vectors of an endpoint were written."""

    def some(self, url: str, size: int) -> Sequence[VectorLocation]: ...


class Comparing:
    """Sees before a run buys a vector that it may be written beside those that are there."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        written: Locations,
        ledger: Ledger,
        resolver: Resolver,
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        space = Space(
            url=settings.openai_base_url,
            model=settings.embedding_model,
            dimensions=settings.embedding_dimensions,
            where=f"{settings.opensearch_address} {settings.index_expression}",
            form=Endpoint.of(settings).form,
        )
        self._guard = SpaceGuard(
            space, _Memory(settings, ledger), _StoredSamples(settings, store, written)
        )

    def look(self, run: str) -> None:
        """Raises as `SpaceGuard.look`."""

        def ask(texts: Mapping[str, str]) -> Mapping[str, Vector]:
            return self._resolver.embed(texts, RunUsage(self._ledger, run), occasion=run).vectors

        def tell(sentence: str) -> None:
            log.info("comparison: %s", sentence)
            self._ledger.runs.note_comparison(run, sentence)

        self._guard.look(ask, tell)


class _Memory:
    """`enrich.embedding.space_guard.Memory` in Redis."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._configuration = Configuration.of(settings)
        self._hard_limit = settings.enrich_hard_time_limit_seconds

    def compared_space(self, model: str, dimensions: int) -> Space | None:
        known = self._ledger.endpoint.compared(model, dimensions)
        if known is None:
            return None
        url, stored = known
        where, _, form = stored.partition("\n")
        return Space(url=url, model=model, dimensions=dimensions, where=where, form=form)

    def remember_space(self, space: Space) -> None:
        # As one text: a worker of an older version takes it for another place, and compares.
        where = f"{space.where}\n{space.form}" if space.form else space.where
        self._ledger.endpoint.record_compared(space.model, space.dimensions, space.url, where)

    def work_of_others(self) -> bool:
        return self._ledger.chunks.leased_elsewhere(self._configuration, self._hard_limit)


class _StoredSamples:
    """`enrich.embedding.space_guard.Stored` in OpenSearch."""

    def __init__(self, settings: Settings, store: RunStore, written: Locations) -> None:
        self._store = store
        self._written = written
        self._space = settings.embedding_model, settings.embedding_dimensions
        self._rewrite = rewrite_of(settings)

    def vouched(self, url: str) -> Sequence[Sample]:
        try:
            places = self._written.some(url, MOST_PLACES)
        except TransientError as error:
            log.warning("digests of written vectors cannot be read: %s", error)
            return []
        try:
            stored = self._store.stored_vectors.read(places)
        except RequestRefused:
            return []
        return [
            sample
            for place, one in zip(places, stored, strict=True)
            if one is not None and place.vouches_for(one.fingerprint, one.vector)
            for sample in self._sample(place.index, one)
        ]

    def some(self) -> Sequence[Sample]:
        return [
            sample
            for index, one in self._store.stats.enriched()
            for sample in self._sample(index, one)
        ]

    def count(self) -> tuple[int, bool]:
        # What was written a moment ago must be seen.
        try:
            self._store.documents.refresh(self._store.stats.names())
        except (RequestRefused, AccessRefused) as error:
            log.warning("indices were not refreshed: %s", error)
        counted = self._store.stats.count_of_model()
        return counted.value, counted.gaps.whole

    def _sample(self, index: str, one: StoredVector) -> list[Sample]:
        """The log as a sample, if its vector is of the text that it has now."""
        text = text_now(one, self._space, self._rewrite)
        if text is None:
            return []
        digest = fingerprint(text)
        if one.fingerprint not in ("", digest):
            return []
        return [Sample(project=project_of(index), fingerprint=digest, text=text, vector=one.vector)]
