"""Makes plans: asks the log store for the texts, the cache and the logs for vectors that are there,
and the ledger for what was measured. Nothing is bought, and no log is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from more_itertools import sliced

from enrich.embedding.limits import limits_of
from enrich.errors import TextUnusable
from enrich.log_store.distinct_texts import RELATIVE_ERROR, ScriptsRefused
from enrich.log_store.pages import Target
from enrich.log_store.preflight import above_watermark
from enrich.log_store.refusals import RightMissing
from enrich.planning.disk import bytes_by_node, fullest, vector_bytes
from enrich.planning.parts import Backlog, Parts, Tell, TextCounter, untold
from enrich.planning.plan import (
    Billed,
    Bounds,
    Counted,
    Disk,
    Paid,
    Plan,
    Saved,
    cost_of,
    disk_of,
    error_of,
    time_of,
    tokens_of,
)
from enrich.planning.reading import MOST_NORMALIZED, Reading
from enrich.planning.speed import Ran, speed_of
from enrich.planning.texts import DistinctTexts
from enrich.settings import PRICE_PER_MILLION_TOKENS, rewrite_of
from enrich.text.extract import MAX_TEXT_BYTES, cut, fingerprint, text_of
from enrich.text.kinds import ALL
from enrich.text.normalizing import Normalizer

#: Logs of one index in one search, and indices in one request: a page of long stack traces has
#: 30 MB then.
PAGE, ABREAST = 1_000, 3

#: Texts that one request asks for.
TEXTS_AT_ONCE = 5_000

#: Distinct texts of a backlog that is not read which are looked at.
SAMPLED = 2_000


@dataclass(kw_only=True)
class _Seen:
    """What is known of the texts."""

    texts: DistinctTexts
    counted: Counted
    #: Of all logs, as they would be sent.
    bytes_of_all: float
    raw: int | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    #: For `Saved.normalize_looked_at` and `normalize_left`.
    normalized: tuple[int, int] = (0, 0)


class Planner:
    """Plans for one deployment."""

    def __init__(self, parts: Parts) -> None:
        #: What it works with.
        self.parts = parts
        self._settings = settings = parts.settings
        self._rewrite = rewrite_of(settings)
        self._schema = settings.log_schema
        #: Of a text and of a request, as the endpoint takes them now.
        self._most_bytes, self._most_inputs = MAX_TEXT_BYTES, settings.enrich_batch_size

    def backlog(self, wanted: Callable[[str], bool] = lambda index: True) -> Backlog:
        """What a run would take now of the indices that are wanted.

        Raises:
            EnrichError: OpenSearch cannot tell.
        """
        store = self.parts.store
        backlog = store.backlog.count()
        names = [name for name in sorted(backlog.counts) if wanted(name)]
        ready = store.preflight.inspect(names)
        fit = [name for name in names if name not in ready.skipped]
        refused = store.wholeness.survey(fit, ready, backlog.unsorted)
        unreadable = {n: why for n, why in backlog.unreadable.items() if wanted(n)}
        return Backlog(
            counts={name: backlog.counts[name] for name in fit if name not in refused},
            unsorted=backlog.unsorted,
            windows=ready.windows,
            left_out={**unreadable, **ready.skipped, **refused},
        )

    def plan(
        self,
        backlog: Backlog,
        tell: Tell = untold,
        *,
        index: str = "",
        days: float | None = None,
    ) -> Plan:
        """What a backlog will cost.

        Raises:
            EnrichError: a server cannot tell.
        """
        self._learn_limits()
        seen = self._seen(backlog, tell)
        saved, paid = self._saved(seen, tell)
        ledger = self.parts.ledger
        billed = Billed(**asdict(ledger.measurements.usage(self.parts.space)))
        sent = tokens_of(paid, billed, self._most_inputs)
        cost = cost_of(sent, seen.bytes_of_all, self._price)
        return Plan(
            made_at=datetime.now(UTC),
            index=index,
            days=days,
            model=self._settings.embedding_model,
            counted=seen.counted,
            saved=saved,
            sent=sent,
            cost=cost,
            time=time_of(backlog.logs, sent, cost, speed_of(self._runs()), self._bounds()),
            disk=self._disk(backlog.counts),
            left_out={**backlog.left_out, **seen.left_out},
        )

    def _learn_limits(self) -> None:
        settings = self._settings
        found = limits_of(self.parts.ledger.endpoint.limits().get(self.parts.space, {}))
        self._most_bytes = min(
            found.text_bytes or MAX_TEXT_BYTES, settings.enrich_max_text_bytes or MAX_TEXT_BYTES
        )
        most = settings.enrich_batch_size
        self._most_inputs = min(
            most, found.inputs or most, settings.enrich_max_request_inputs or most
        )

    # -- texts

    def _seen(self, backlog: Backlog, tell: Tell) -> _Seen:
        counter = self.parts.text_counts
        if counter and self._rewrite is None and backlog.logs > self.parts.exact_up_to:
            try:
                return self._counted(backlog, counter, tell)
            except ScriptsRefused:
                # Then all logs are read, in pages without scripts.
                pass
        return self._scanned(backlog, tell)

    def _scanned(self, backlog: Backlog, tell: Tell) -> _Seen:
        """Read every log."""
        reading = Reading(self._schema_scope, self._rewrite, self._sent_bytes)
        left_out: dict[str, str] = {}
        indices = sorted(backlog.counts)
        for names in sliced(indices, ABREAST):
            targets = [self._target(name, backlog) for name in names]
            while targets:
                pages = self.parts.store.finder.page(targets, backlog.unsorted)
                following = []
                for target, page in zip(targets, pages, strict=True):
                    if page.trouble:
                        left_out[page.index] = page.trouble
                    for hit in page.hits:
                        reading.take(hit.reference.index, hit.message)
                    if page.cursors and not page.exhausted:
                        following.append(Target(target.index, page.cursors[-1], target.size))
                targets = following
                tell("logs read", reading.logs, backlog.logs)
        texts = reading.texts
        return _Seen(
            texts=texts,
            counted=Counted(
                logs=backlog.logs,
                indices=len(indices),
                unusable=reading.unusable,
                distinct_texts=round(texts.count),
                error=round(texts.error, 4),
                method="scan",
            ),
            bytes_of_all=reading.bytes,
            raw=round(reading.raw.count) if reading.raw is not None else None,
            left_out=left_out,
            normalized=reading.normalized(self._settings.enrich_normalize),
        )

    def _counted(self, backlog: Backlog, counter: TextCounter, tell: Tell) -> _Seen:
        """Let OpenSearch count, and look at some of the texts."""
        indices = sorted(backlog.counts)
        tell("texts counted by OpenSearch", 0, 0)
        distinct = counter.distinct(indices)
        parts = max(1, distinct.value // SAMPLED)
        tell("texts looked at by OpenSearch", 0, 0)
        # A part may have a few more texts than the others.
        some = counter.some(indices, parts, most=2 * SAMPLED + 1_000)
        texts, normalize = DistinctTexts(), Normalizer([ALL])
        looked_at: set[str] = set()
        left: set[str] = set()
        for one in some.value:
            try:
                message = self._schema.message(one.source)
                text = text_of({"message": message}, self._rewrite)
            except TextUnusable:
                continue
            digest = fingerprint(text)
            for name in one.indices:
                texts.add(digest, self._sent_bytes(text), self._schema_scope(name))
            if len(looked_at) < MOST_NORMALIZED and digest not in looked_at:
                looked_at.add(digest)
                left.add(normalize(text))
        gaps = distinct.gaps | some.gaps
        mean = sum(text.size for text in texts) / len(texts) if len(texts) else 0.0
        return _Seen(
            texts=texts,
            counted=Counted(
                logs=backlog.logs,
                indices=len(indices),
                unusable=None,
                distinct_texts=distinct.value,
                error=round(RELATIVE_ERROR, 4),
                method="cardinality",
            ),
            bytes_of_all=mean * backlog.logs,
            left_out=dict(gaps.indices),
            normalized=(len(looked_at), len(left)),
        )

    def _target(self, name: str, backlog: Backlog) -> Target:
        return Target(name, None, min(PAGE, backlog.windows.get(name, PAGE)))

    def _schema_scope(self, index: str) -> str:
        return self._settings.reuse_scope(index)

    def _sent_bytes(self, text: str) -> int:
        return self.parts.prefix_bytes + len(cut(text, self._most_bytes).encode())

    # -- what is there already

    def _saved(self, seen: _Seen, tell: Tell) -> tuple[Saved, Paid]:
        texts = list(seen.texts)
        lends = bool(texts) and bool(self.parts.store.stats.count_of_model().value)
        cached = reused = paid_texts = 0
        sizes: list[int] = []
        for some in sliced(texts, TEXTS_AT_ONCE):
            digests = [text.fingerprint for text in some]
            known = self.parts.cache.known(digests)
            placed = self.parts.locations.find([d for d in digests if d not in known])
            missing = [
                t for t in some if t.fingerprint not in known and t.fingerprint not in placed
            ]
            lent = self._lent((t.fingerprint, t.scopes) for t in missing) if lends else set()
            paid = [text for text in missing if text.fingerprint not in lent]
            cached += len(known)
            reused += len(placed) + len(lent)
            sizes += [text.size for text in paid] + [0] * (len(some) - len(paid))
            paid_texts += len(paid)
            tell("texts looked for", len(sizes), len(texts))
        # What was seen of some texts holds for all.
        counted = seen.counted
        factor = counted.distinct_texts / len(texts) if texts else 0.0
        looked_at, left = seen.normalized
        usable = counted.logs - (counted.unusable or 0)
        return (
            Saved(
                repeats=max(0, usable - counted.distinct_texts),
                masking=None if seen.raw is None else max(0, seen.raw - counted.distinct_texts),
                cache=round(cached * factor),
                reuse=round(reused * factor),
                normalize_looked_at=looked_at,
                normalize_left=left,
            ),
            Paid(
                texts=paid_texts * factor,
                bytes=sum(sizes) * factor,
                error=error_of(sizes, 1 / factor if factor else 1.0, counted.error),
            ),
        )

    def _lent(self, texts: Iterable[tuple[str, frozenset[str]]]) -> set[str]:
        """Texts of which every project that needs one has a vector in some log."""
        wanted: dict[str, set[str]] = {}
        needed = dict(texts)
        for digest, scopes in needed.items():
            for scope in scopes:
                wanted.setdefault(scope, set()).add(digest)
        found = set(self.parts.store.reusable.find(wanted))
        return {
            digest
            for digest, scopes in needed.items()
            if all((scope, digest) in found for scope in scopes)
        }

    # -- money, time, disk

    @property
    def _price(self) -> float | None:
        settings = self._settings
        known = (
            settings.enrich_price_per_million_tokens is not None
            or settings.embedding_model in PRICE_PER_MILLION_TOKENS
        )
        return settings.price_per_million_tokens if known else None

    def _runs(self) -> list[Ran]:
        ledger = self.parts.ledger
        kept = [
            Ran(vectors=run.vectors, inputs=run.inputs, seconds=run.seconds)
            for run in ledger.measurements.runs()
        ]
        return kept or [
            Ran(vectors=run.vectors_written, inputs=run.api_inputs, seconds=run.duration_seconds)
            for run in ledger.records.last(100)
            if run.state == "finished" and not run.deferred and not run.rate_limited
        ]

    def _bounds(self) -> Bounds:
        settings = self._settings
        requests, tokens = self.parts.limits()
        return Bounds(
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            requests_set=bool(settings.enrich_requests_per_minute),
            tokens_set=bool(settings.enrich_tokens_per_minute),
            write_pace=settings.enrich_write_pace,
            usd_per_day=settings.enrich_max_cost_per_day,
            logs_per_run=settings.enrich_max_logs_per_run,
            interval_seconds=settings.interval_seconds,
        )

    def _disk(self, logs: Mapping[str, int]) -> Disk:
        dimensions = self._settings.embedding_dimensions
        placement = self.parts.placement
        if placement is None or not logs:
            size = vector_bytes(dimensions, in_source=False)
            return Disk(bytes=0 if not logs else None, bytes_per_vector=round(size))
        indices = sorted(logs)
        try:
            in_source = placement.vectors_in_source(indices)
            sizes = {
                name: vector_bytes(dimensions, in_source=in_source.get(name, True))
                for name in indices
            }
            copies = placement.copies(indices)
            given = bytes_by_node(logs, sizes, copies)
            filling = fullest(placement.disks(), given)
            mark = placement.high_watermark()
            return disk_of(logs, sizes, given, filling, mark, above_watermark)
        except RightMissing as error:
            lacking = f" ({', '.join(error.rights)})" if error.rights else ""
            size = vector_bytes(dimensions, in_source=True)
            return Disk(
                bytes_per_vector=round(size),
                unseen=f"which node is filled most cannot be seen: OPENSEARCH_USER lacks a "
                f"right{lacking}",
            )
