"""How many distinct texts pending logs have, counted by OpenSearch itself, and some of these texts.

For backlogs that take too long to be read. Both go over the sources: a field `.keyword` leaves out
what is longer than its ignore_above, which is every stack trace. The count is HyperLogLog++ at its
highest precision; the texts are those whose hash falls into a part of all hashes, so that a text's
chance does not depend on how many logs have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from enrich.errors import TransientError
from enrich.log_store.coverage import Counted
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.pages import SHORTENED, SHORTENING, TOLD, scripts_refused
from enrich.log_store.queries import Queries, Searched
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.scope import Scope
from enrich.schema import Schema

#: The highest that OpenSearch takes: 2^18 registers of 256 kB in all.
PRECISION = 40_000

#: Two standard errors of it, 1.04 by the root of the registers (Flajolet and others, 2007).
RELATIVE_ERROR = 2 * 1.04 / 2**9

#: Indices in which one text is said to be.
MOST_INDICES = 20

#: Between the values of several fields. No log has it, since JSON has to escape it.
_BETWEEN = "\x01"

#: One value: the text, shortened as for a page, or null where there is none.
_TEXT = (
    SHORTENED
    + """
String text(Map s, Map p) {
  def m = s.message;
  return m instanceof String ? shortened(m, p).trim() : null;
}
"""
)

#: All that the text is told by, one name after the other.
_FIELDS = (
    SHORTENED
    + TOLD
    + """
String text(Map s, Map p) {
  StringBuilder values = new StringBuilder();
  boolean some = false;
  for (String name : p.names) {
    List found = new ArrayList();
    collect(s, name, found);
    def value = null;
    for (def one : found) { if (value == null) { value = told(one, p); } }
    if (value instanceof String) { some = true; values.append(value.trim()); }
    values.append(p.between);
  }
  return some ? values.toString() : null;
}
"""
)

_ALL = "return text(params._source, params);"

#: Those whose hash, mixed as in MurmurHash3, falls into one of `parts` equal parts.
_PART = """
String t = text(params._source, params);
if (t == null) { return null; }
int h = t.hashCode();
h ^= h >>> 16;
h *= -2048144789;
h ^= h >>> 13;
h *= -1028477387;
h ^= h >>> 16;
int parts = params.parts;
return h % parts == 0 ? t : null;
"""


class ScriptsRefused(TransientError):
    """OpenSearch runs no inline scripts, so that it cannot count texts."""


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """A distinct text, and where it is."""

    #: What the shape reads it from, under its fields' whole names.
    source: dict[str, str]
    #: MOST_INDICES at most.
    indices: tuple[str, ...]


class _Value(msgspec.Struct):
    value: int


class _Bucket(msgspec.Struct):
    key: str
    doc_count: int


class _Indices(msgspec.Struct):
    buckets: list[_Bucket]


class _Text(msgspec.Struct):
    key: str
    indices: _Indices


class _Texts(msgspec.Struct):
    buckets: list[_Text]


class _CountAnswer(Searched):
    aggregations: dict[str, _Value] = msgspec.field(default_factory=dict)


class _TextsAnswer(Searched):
    aggregations: dict[str, _Texts] = msgspec.field(default_factory=dict)


@translates_odd_answers
class TextCounts:
    """Counts; changes nothing. Each request reads every pending log once, which takes OpenSearch
    some ten seconds a million."""

    def __init__(self, scope: Scope, queries: Queries) -> None:
        self._scope = scope
        self._queries = queries
        self._schema: Schema = queries.schema

    def distinct(self, indices: Sequence[str]) -> Counted[int]:
        """Distinct texts of the pending logs of these indices, RELATIVE_ERROR more or less.

        Raises:
            ScriptsRefused
        """
        cardinality = {"precision_threshold": PRECISION, "script": self._script(_ALL)}
        body = self._body(indices, {"texts": {"cardinality": cardinality}})
        counted = self._search(_CountAnswer, body)
        found = counted.value.aggregations.get("texts")
        return Counted(found.value if found else 0, counted.gaps)

    def some(self, indices: Sequence[str], parts: int, most: int) -> Counted[list[SampledText]]:
        """The texts of one of so many parts of all hashes, `most` of them at most.

        Raises:
            ScriptsRefused
        """
        terms = {"script": self._script(_PART, parts=parts), "size": most}
        by_index = {"indices": {"terms": {"field": "_index", "size": MOST_INDICES}}}
        body = self._body(indices, {"texts": {"terms": terms, "aggs": by_index}})
        counted = self._search(_TextsAnswer, body)
        found = counted.value.aggregations.get("texts")
        texts = [
            SampledText(
                source=self._source(one.key),
                indices=tuple(bucket.key for bucket in one.indices.buckets),
            )
            for one in (found.buckets if found else [])
        ]
        return Counted(texts, counted.gaps)

    def _search(self, type_: type[Any], body: dict[str, Any]) -> Counted[Any]:
        try:
            return self._scope.search(type_, body, {"request_cache": "false"})
        except RequestRefused as error:
            if scripts_refused(str(error)) or error.error_type == "script_exception":
                raise ScriptsRefused("OpenSearch runs no inline scripts") from None
            raise

    def _body(self, indices: Sequence[str], aggregations: dict[str, Any]) -> dict[str, Any]:
        query = self._queries.pending()
        query["bool"]["filter"] = [
            *query["bool"]["filter"],
            {"terms": {"_index": list(indices)}},
        ]
        return {"size": 0, "track_total_hits": False, "query": query, "aggs": aggregations}

    def _script(self, body: str, **params: int) -> dict[str, Any]:
        alone = self._schema.is_message_alone
        names = {} if alone else {"names": list(self._schema.message_fields)}
        return {
            "source": (_TEXT if alone else _FIELDS) + body,
            "params": {**SHORTENING, **names, "between": _BETWEEN, **params},
        }

    def _source(self, key: str) -> dict[str, str]:
        if self._schema.is_message_alone:
            return {"message": key}
        values = key.split(_BETWEEN)
        return {
            name: value
            for name, value in zip(self._schema.message_fields, values, strict=False)
            if value
        }
