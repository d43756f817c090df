"""Reading pages of pending logs, newest first.

Each trouble of one index is confined to that index: one search for each in an `_msearch`, and an
answer counts only if every shard of the index gave one. Texts come back shortened by OpenSearch
itself, so that a page of enormous logs stays small on the wire.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from enrich.errors import place_of
from enrich.log_store.connection import Connection
from enrich.log_store.coverage import NO_SHARD, cannot_search
from enrich.log_store.odd_answers import MISSHAPEN, translates_odd_answers
from enrich.log_store.queries import (
    NO_PIPELINE,
    Queries,
    RawHit,
    SearchAnswer,
)
from enrich.log_store.refusals import TooDeep, error_type
from enrich.log_store.scope import Scope
from enrich.models import MAX_CHUNK_BYTES, Reference
from enrich.schema import Schema
from enrich.text.extract import MAX_TEXT_BYTES, TAIL_BYTES

log = logging.getLogger(__name__)

#: Why an index is left out whose search ran out of time twice.
_TOO_SLOW = "not every shard answers within half of OPENSEARCH_TIMEOUT_SECONDS"

#: A page without scripts carries whole messages, so it has to be small.
PAGE_WITHOUT_SCRIPTS = 50

#: Of a log whose size nobody told, in characters: enough that a chunk of small ones is still one.
UNKNOWN_SIZE = MAX_CHUNK_BYTES // 64

#: In both scripts. Shortens a text so that `text.text_of` of it equals `text.text_of` of the whole:
#: stripped, everything up to where its tail may begin, and that tail. Painless knows no escape for
#: a line break, so that one comes as a parameter.
SHORTENED = """
String shortened(String m, Map p) {
  int head = p.head;
  int tail = p.tail;
  int blank = p.blank;
  String white = p.white;
  int n = m.length();
  if (n <= head + tail) { return m; }
  int first = 0;
  int last = n;
  while (first < n && first < blank && white.contains(m.substring(first, first + 1))) { first++; }
  while (last > first && n - last < blank
      && white.contains(m.substring(last - 1, last))) { last--; }
  if (last - first <= head + tail) { return m.substring(first, last); }
  int cause = m.lastIndexOf('Caused by');
  int from = cause - first > head - tail ? cause : last - tail;
  int to = (int) Math.min(last, from + tail);
  return m.substring(first, first + head) + p.gap + m.substring(from, to);
}
"""

#: In both scripts: the length of the whole source, about.
_SIZE = """
long size = 0;
int seen = 0;
for (def value : params._source.values()) {
  if (++seen > params.fields) { size = params.huge; break; }
  if (value != null) { size += value.toString().length(); }
}
"""

#: Gives that length and the message, shortened.
_MESSAGE_SCRIPT = f"""{SHORTENED}{_SIZE}
def m = params._source.message;
return [size, m instanceof String ? shortened(m, params) : null];
"""

#: In scripts for a shape whose text is in several fields, or not at the top: the values of a name
#: of `params.names`, and what a value tells. A string is shortened, an array of strings is one with
#: line breaks; numbers are levels, which tell shapes apart; anything else is no text.
TOLD = """
void collect(def at, String name, List found) {
  if (at instanceof List) {
    for (def one : at) { if (one instanceof Map) { collect(one, name, found); } }
    return;
  }
  if (!(at instanceof Map) || found.size() >= 16) { return; }
  def value = at.get(name);
  if (value != null) { found.add(value); }
  int dot = name.indexOf('.');
  while (dot > 0) {
    def inside = at.get(name.substring(0, dot));
    if (inside != null) { collect(inside, name.substring(dot + 1), found); }
    dot = name.indexOf('.', dot + 1);
  }
}
def told(def value, Map p) {
  if (value instanceof String) { return shortened(value, p); }
  if (value instanceof Number) { return value; }
  if (!(value instanceof List)) { return null; }
  StringBuilder lines = new StringBuilder();
  for (int i = 0; i < value.size() && i < p.fields; i++) {
    if (!(value.get(i) instanceof String)) { return null; }
    if (i > 0) { lines.append(p.gap); }
    lines.append(value.get(i));
  }
  return shortened(lines.toString(), p);
}
"""

#: The same for such a shape: one value for each name.
_FIELDS_SCRIPT = (
    SHORTENED
    + TOLD
    + _SIZE
    + """
List answer = new ArrayList();
answer.add(size);
for (String name : params.names) {
  List found = new ArrayList();
  collect(params._source, name, found);
  def value = null;
  for (def one : found) { if (value == null) { value = told(one, params); } }
  answer.add(value);
}
return answer;
"""
)
SHORTENING = {
    "head": MAX_TEXT_BYTES + TAIL_BYTES,
    "tail": TAIL_BYTES,
    "gap": "\n",
    #: What `str.strip` strips, and how much of it at most at each end: OpenSearch ends a script
    #: after a million turns of its loops.
    "white": "".join(c for c in map(chr, range(0x10000)) if c.isspace()),
    "blank": 200_000,
    #: A log of more fields than these counts as one that travels alone.
    "fields": 10_000,
    "huge": MAX_CHUNK_BYTES,
}


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A found log: where it is and its message, shortened, or None if that is no text."""

    reference: Reference
    message: str | None
    #: Of its whole source, in characters, about; UNKNOWN_SIZE or more where no script tells it.
    size: int


@dataclass(frozen=True)
class Target:
    """What is to be read of one index."""

    index: str
    #: Behind the last log read before; None: from the newest.
    cursor: list[Any] | None
    #: Logs at most.
    size: int


@dataclass(frozen=True, kw_only=True)
class IndexPage:
    """What one search of one index brought."""

    index: str
    hits: list[Hit] = field(default_factory=list)
    #: Where the next page begins: the cursor behind each hit, in order.
    cursors: list[list[Any]] = field(default_factory=list)
    #: Whether this was the last page of the index.
    exhausted: bool = False
    #: Why the index could not be read; then there are no hits.
    trouble: str = ""
    #: Whether that is so because its search ran out of time.
    late: bool = False


@translates_odd_answers
class Finder:
    """Searches; changes nothing."""

    def __init__(self, connection: Connection, scope: Scope, queries: Queries) -> None:
        self._connection = connection
        #: Of one search: the others of the request wait for it no longer.
        self._timeout = connection.write_timeout
        self._scope = scope
        self._queries = queries
        self._schema = queries.schema
        self._script = _script_of(self._schema)
        #: Whether OpenSearch runs scripts at all.
        self._scripts = True
        #: Indices with a log that no script can take, for as long as this process lives.
        self._unscripted: set[str] = set()

    def page(self, targets: Sequence[Target], unsorted: frozenset[str]) -> list[IndexPage]:
        """Read the next pending logs of each index, newest first.

        Args:
            unsorted: those of the indices that are read by their order of change.
        """
        return self._read(targets, unsorted)

    def newest(self, sizes: Mapping[str, int], unsorted: frozenset[str]) -> list[IndexPage]:
        """The newest pending logs of each index, so many of each; as `page`."""
        targets = [Target(name, None, size) for name, size in sizes.items()]
        return self._read(targets, unsorted)

    def _read(self, targets: Sequence[Target], unsorted: frozenset[str]) -> list[IndexPage]:
        if not targets:
            return []
        targets = [self._bounded(target) for target in targets]
        try:
            answers = self._answers(targets, unsorted)
        except TooDeep:
            if len(targets) > 1:
                return [page for target in targets for page in self._read([target], unsorted)]
            # Without a script messages come as they are, and this one is no text.
            answers = self._answers(targets, unsorted, messages=False)
        if self._scripts and any(scripts_refused(str(answer.error)) for answer in answers):
            log.warning(
                "OpenSearch refuses inline scripts: messages are read whole, in pages of %d logs",
                PAGE_WITHOUT_SCRIPTS * len(targets),
            )
            self._scripts = False
            return self._read(targets, unsorted)
        pages = []
        for target, answer in zip(targets, answers, strict=True):
            if self._script_failed(target.index, answer):
                self._unscripted.add(target.index)
                log.warning(
                    "the script that shortens messages fails on a log of %s: its messages are read "
                    "whole, in pages of %d logs",
                    target.index, PAGE_WITHOUT_SCRIPTS,
                )  # fmt: skip
                pages += self._read([target], unsorted)
            else:
                pages.append(self._one_page(target, answer))
        return pages

    def _one_page(self, target: Target, answer: SearchAnswer) -> IndexPage:
        """The page of one index. What was not foreseen in it is that index's alone: whoever may
        write its logs must not stop the others."""
        try:
            return self._index_page(target, answer)
        except MISSHAPEN as error:
            kind = type(error).__name__
            log.error(
                "the page of index %s has a shape that was not foreseen (%s, %s)",
                target.index, kind, place_of(error),
            )  # fmt: skip
            return IndexPage(index=target.index, trouble=f"its page has another shape ({kind})")

    def _bounded(self, target: Target) -> Target:
        if self._is_scripted(target.index):
            return target
        return replace(target, size=min(target.size, PAGE_WITHOUT_SCRIPTS))

    def _is_scripted(self, index: str) -> bool:
        return self._scripts and index not in self._unscripted

    def _script_failed(self, index: str, answer: SearchAnswer) -> bool:
        """Whether some log of the index is more than the script can take. Its own trouble only."""
        if not self._is_scripted(index):
            return False
        kinds = {error_type(answer.error), *answer.shards.failing_indices.values()}
        return "script_exception" in kinds

    def _answers(
        self, targets: Sequence[Target], unsorted: frozenset[str], *, messages: bool = True
    ) -> list[SearchAnswer]:
        rows: list[Any] = []
        for target in targets:
            rows.append({"index": target.index, "ignore_unavailable": True})
            query = self._page_query(target, target.index in unsorted)
            rows.append(query if messages else {**query, "_source": False})
        return self._scope.searches(rows)

    def _page_query(self, target: Target, unsorted: bool) -> dict[str, Any]:
        # `_last` is what holds anyway. Unsaid, OpenSearch passes over segments whose times all lie
        # before the cursor, and with them their logs without a time.
        newest = {
            "order": "desc",
            "missing": "_last",
            "unmapped_type": "date",
            "numeric_type": "date",
        }
        by_time = [] if unsorted else [{name: newest} for name in self._schema.timestamp_fields]
        values = len(by_time) + 1
        query: dict[str, Any] = {
            "size": target.size,
            "query": self._queries.pending(),
            "sort": [*by_time, {"_seq_no": "desc"}],
            "seq_no_primary_term": True,
            "track_total_hits": False,
            "timeout": self._timeout,
            **NO_PIPELINE,
        }
        if target.cursor is not None:
            *time, number = target.cursor[:values]
            query["search_after"] = [*time, number + (len(target.cursor) > values)]
            if taken := target.cursor[values:]:
                query["query"]["bool"]["must_not"].append({"ids": {"values": taken}})
        if self._is_scripted(target.index):
            query |= {"_source": False, "script_fields": {"message": {"script": self._script}}}
        else:
            query["_source"] = list(self._schema.message_fields)
        return query

    def _index_page(self, target: Target, answer: SearchAnswer) -> IndexPage:
        index = target.index
        if answer.error is not None:
            kind = error_type(answer.error)
            if kind == "index_not_found_exception":
                return IndexPage(index=index, exhausted=True)
            return IndexPage(index=index, trouble=cannot_search(kind))
        if not answer.whole:
            # What was found until then may leave out newer logs.
            why = _TOO_SLOW if answer.timed_out else NO_SHARD
            return IndexPage(index=index, trouble=why, late=answer.timed_out)
        hits = [self._found(hit) for hit in answer.hits.hits]
        return IndexPage(
            index=index,
            hits=hits,
            cursors=_cursors(target.cursor or [], answer.hits.hits),
            exhausted=len(hits) < target.size,
        )

    def _found(self, hit: RawHit) -> Hit:
        if "message" in hit.fields:
            size, *values = hit.fields["message"]
            # Each under its whole name, which is where a document may have it too.
            source = dict(zip(self._schema.message_fields, values, strict=True))
            message = self._schema.message(source)
        else:
            message = self._schema.message(hit.source)
            size = max(UNKNOWN_SIZE, len(message) if isinstance(message, str) else 0)
        return Hit(
            reference=Reference(hit.index, hit.id, hit.routing, hit.seq_no, hit.primary_term),
            message=message if isinstance(message, str) else None,
            size=int(size),
        )


def _script_of(schema: Schema) -> dict[str, Any]:
    if schema.is_message_alone:
        return {"source": _MESSAGE_SCRIPT, "params": SHORTENING}
    return {
        "source": _FIELDS_SCRIPT,
        "params": {**SHORTENING, "names": list(schema.message_fields)},
    }


def _cursors(before: list[Any], hits: Sequence[RawHit]) -> list[list[Any]]:
    """The cursor behind each hit: what it is sorted by, then the ids taken so far of those that are
    sorted by the same. Each shard counts changes by itself, so that logs of one time on several
    shards may have one `_seq_no`; no more of them than there are shards."""
    cursors = []
    for hit in hits:
        same = before[len(hit.sort) :] if before[: len(hit.sort)] == hit.sort else []
        before = [*hit.sort, *same, hit.id]
        cursors.append(before)
    return cursors


def scripts_refused(text: str) -> bool:
    """Whether a refusal says that OpenSearch is told to run no such script: `script.allowed_types`
    or `script.allowed_contexts`. Any other failure of a script is that of one log."""
    return "[inline] scripts" in text or "scripts using [" in text
