"""From the bytes of a message of the topic to a wanted log, to "not ours", or to poison. Pure.

Most messages have another level. Those are told by decoding nothing but the level; only a wanted
log is read whole, and then as strictly as OpenSearch reads what it stores.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from enrich.models import MAX_CHUNK_BYTES
from enrich.realtime.log_times import is_possible, seconds_of
from enrich.schema import Schema
from enrich.schema.paths import roots_of, values_at

log = logging.getLogger(__name__)

#: Of one message, in bytes. What a chunk of the backfill has at most: reading takes several times
#: as much memory, and mget and bulk carry it well. Kafka's own default limit is 1 MB.
MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES

#: OpenSearch's own limits, in bytes.
MAX_ID_BYTES = 512
MAX_INDEX_NAME_BYTES = 255

#: Another name of `level` in messages, where the schema is LogLens' own.
_LEVEL_ALIAS = "log_level"

#: How many levels are kept of which it is known whether they are wanted.
_MAX_KNOWN_LEVELS = 1024
_MAX_LEVEL_LENGTH = 64

#: A level as nearly all messages have it.
_Level = Annotated[str, msgspec.Meta(max_length=_MAX_LEVEL_LENGTH)] | int | None

#: Decoding goes this deep where it cannot go to the end.
_SHALLOW_DEPTH = 32

#: Python refuses to read longer numbers.
_MAX_DIGITS = 4000

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class Poison(StrEnum):
    """Why a message can never become a log with a vector."""

    TOMBSTONE = "tombstone"
    NOT_JSON = "not_json"
    OTHER_ENCODING = "other_encoding"
    BYTE_ORDER_MARK = "byte_order_mark"
    NOT_AN_OBJECT = "not_an_object"
    NOT_A_NUMBER = "not_a_number"
    DUPLICATE_KEYS = "duplicate_keys"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    ID_MISSING = "id_missing"
    ID_WRONG_TYPE = "id_wrong_type"
    ID_TOO_LONG = "id_too_long"
    PROJECT_MISSING = "project_missing"
    PROJECT_WRONG_TYPE = "project_wrong_type"
    PROJECT_TOO_LONG = "project_too_long"
    #: Nothing that begins an index name, such as one with a wildcard, a comma or a slash.
    PROJECT_UNSAFE = "project_unsafe"
    #: Neither the log nor Kafka states a time.
    TIME_MISSING = "time_missing"
    TIME_UNREADABLE = "time_unreadable"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    #: A fault of this program.
    UNFORESEEN = "unforeseen"


@dataclass(frozen=True, slots=True)
class WantedLog:
    """A log of a wanted level as the topic has it."""

    #: `{safe project}_{YYYY}_{MM}` of the log's own time in UTC.
    index: str
    id: str
    routing: str | None
    #: Seconds since the epoch.
    log_time: float
    #: The message as it came.
    source: bytes


class _Refused(Exception):
    """Carries the code out of the steps of reading."""

    def __init__(self, code: Poison) -> None:
        super().__init__(code)
        self.code = code


class MessageReader:
    """Reads messages of logs that one schema describes."""

    def __init__(
        self, schema: Schema, *, id_fields: Sequence[str], project_fields: Sequence[str]
    ) -> None:
        """
        Args:
            id_fields: where a document's id may stand; the first that is one counts.
            project_fields: where its project may stand; the first that is there counts.
        """
        self._schema = schema
        self._id_fields = tuple(id_fields)
        self._project_fields = tuple(project_fields)
        only = schema.first
        has_alias = schema.is_plain and only.exact_level and only.level_field == "level"
        self._level_alias = _LEVEL_ALIAS if has_alias else ""
        names = (*schema.level_fields, _LEVEL_ALIAS) if has_alias else schema.level_fields
        self._decode_level = msgspec.json.Decoder(_levels_struct(names)).decode
        self._known_levels: dict[msgspec.Struct, bool] = {}

    def skips(self, value: bytes | None) -> bool:
        """Whether a message is plainly of another level: the quick answer for most. False says
        nothing; `read` does."""
        try:
            return self._known_levels.get(self._decode_level(value)) is False  # type: ignore[arg-type]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            return False

    def read(self, value: bytes | None, *, produced_at: float | None) -> WantedLog | Poison | None:
        """The log of a message if its level is wanted, None if it has another level or none, or why
        it is neither. Raises nothing but MemoryError.

        Args:
            produced_at: Kafka's time of the message in seconds since the epoch; it stands in for a
                log's own time where that is missing.
        """
        if value is None:
            return Poison.TOMBSTONE
        try:
            if not self._is_wanted(value):
                return None
            return self._wanted_log(value, produced_at)
        except _Refused as refusal:
            return refusal.code
        except MemoryError:
            raise
        except Exception as error:
            # One message that breaks the reader must not stop its partition. No text: it may quote
            # the log.
            log.error("a message broke the reader: %s", type(error).__name__)
            return Poison.UNFORESEEN

    # -- the level

    def _is_wanted(self, value: bytes) -> bool:
        try:
            level = self._decode_level(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._is_wanted_in(_loads_leniently(value))
        wanted = self._known_levels.get(level)
        if wanted is None:
            wanted = self._is_wanted_in(_loads_leniently(value))
            if len(self._known_levels) >= _MAX_KNOWN_LEVELS:
                self._known_levels.clear()
            self._known_levels[level] = wanted
        return wanted

    def _is_wanted_in(self, source: dict[str, Any]) -> bool:
        if self._level_alias and source.get("level") is None:
            source = {"level": source.get(self._level_alias)}
        return self._schema.is_wanted(source)

    # -- a wanted log

    def _wanted_log(self, value: bytes, produced_at: float | None) -> WantedLog:
        if len(value) > MAX_MESSAGE_BYTES:
            raise _Refused(Poison.TOO_LARGE)
        source = _loads_strictly(value)
        log_time = self._log_time(source, produced_at)
        routing = source.get("_routing")
        return WantedLog(
            index=_index_name(self._project(source), log_time),
            id=self._id(source),
            routing=routing if isinstance(routing, str) and _size(routing) else None,
            log_time=log_time,
            source=value,
        )

    def _id(self, source: dict[str, Any]) -> str:
        values = [value for name in self._id_fields for value in values_at(source, name)]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
                continue
            document_id = str(value)
            size = _size(document_id)
            if not size:
                continue
            if size > MAX_ID_BYTES:
                raise _Refused(Poison.ID_TOO_LONG)
            return document_id
        raise _Refused(Poison.ID_WRONG_TYPE if any(v != "" for v in values) else Poison.ID_MISSING)

    def _project(self, source: dict[str, Any]) -> str:
        """The part of the index name that says whose log it is; it cannot say another project's."""
        values = (value for name in self._project_fields for value in values_at(source, name))
        project = next(values, "")
        if project == "":
            raise _Refused(Poison.PROJECT_MISSING)
        if isinstance(project, bool) or not isinstance(project, str | int):
            raise _Refused(Poison.PROJECT_WRONG_TYPE)
        safe = str(project).replace("-", "_").lower()
        # Letters, digits, marks of letters and `_`, as in names of Python, and dots: none of them
        # means anything in a path, in a pattern or in a list of names.
        is_name = f"p{safe.replace('.', '')}".isidentifier()
        if not is_name or safe[0] in "_." or safe != safe.lower():
            raise _Refused(Poison.PROJECT_UNSAFE)
        return safe

    def _log_time(self, source: dict[str, Any], produced_at: float | None) -> float:
        stated = self._schema.time(source)
        if stated is None and produced_at is None:
            raise _Refused(Poison.TIME_MISSING)
        seconds = produced_at if stated is None else seconds_of(stated)
        if seconds is None:
            raise _Refused(Poison.TIME_UNREADABLE)
        if not is_possible(seconds):
            raise _Refused(Poison.TIME_OUT_OF_RANGE)
        return seconds


def _index_name(project: str, log_time: float) -> str:
    name = f"{project}_{datetime.fromtimestamp(log_time, UTC):%Y_%m}"
    if _size(name) > MAX_INDEX_NAME_BYTES:
        raise _Refused(Poison.PROJECT_TOO_LONG)
    return name


def _size(text: str) -> int:
    """Bytes of UTF-8; 0 if half a surrogate pair leaves the text without such a form."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def _levels_struct(names: Iterable[str]) -> type[msgspec.Struct]:
    """What to decode of a document to know its values of these fields, however it spells their
    names: nested, with dots, or mixed. Equal and hashable by those values.

    Decoding refuses what is rare: other types, arrays, long texts. Floats and booleans would equal
    whole numbers that are not the same level.
    """
    rests: dict[str, list[str]] = {}
    for name in names:
        for root in roots_of(name):
            rests.setdefault(root, []).append(name[len(root) + 1 :])
    fields: list[tuple[str, Any, Any]] = []
    for number, (root, after) in enumerate(rests.items()):
        inside = [rest for rest in after if rest]
        kind: Any = _Level | _levels_struct(inside) if inside else _Level
        fields.append((f"f{number}", kind, msgspec.field(name=root, default=None)))
    return msgspec.defstruct("Levels", fields, frozen=True, gc=False)


# -- reading JSON


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _no_number(word: str) -> float:
    raise _Refused(Poison.NOT_A_NUMBER)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    source = dict(pairs)
    if len(source) < len(pairs):
        raise _Refused(Poison.DUPLICATE_KEYS)
    return source


_LENIENT = json.JSONDecoder(parse_int=_whole_number)
#: OpenSearch stores no document with the same key twice, since each reader takes another value.
_STRICT = json.JSONDecoder(
    parse_int=_whole_number, parse_constant=_no_number, object_pairs_hook=_distinct
)


def _loads_leniently(value: bytes) -> dict[str, Any]:
    """What can be made of a message to know its level, as `json.loads` reads it: in each Unicode
    encoding, with NaN, the last of duplicate keys. Bytes that the encoding does not have, and what
    is nested too deep, are replaced."""
    encoding = json.detect_encoding(value)
    text = value.decode(encoding, errors="replace")
    try:
        try:
            source = _LENIENT.decode(text)
        except RecursionError:
            source = _LENIENT.decode(_shallow(text))
    except ValueError:
        raise _Refused(Poison.NOT_JSON if _is_utf8(value) else Poison.OTHER_ENCODING) from None
    if not isinstance(source, dict):
        raise _Refused(Poison.NOT_AN_OBJECT)
    return source


def _loads_strictly(value: bytes) -> dict[str, Any]:
    """A message of which it is known that it is an object, as OpenSearch would read it."""
    if value.startswith(_BYTE_ORDER_MARK):
        raise _Refused(Poison.BYTE_ORDER_MARK)
    if not _is_utf8(value):
        raise _Refused(Poison.OTHER_ENCODING)
    try:
        source: dict[str, Any] = _STRICT.decode(value.decode())
    except RecursionError:
        raise _Refused(Poison.TOO_DEEP) from None
    except ValueError:
        raise _Refused(Poison.NOT_JSON) from None
    return source


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    # ASCII in UTF-16 or UTF-32 is UTF-8 with zeros in between.
    return json.detect_encoding(value).startswith("utf-8")


def _shallow(text: str) -> str:
    """JSON with `null` for each array and object below _SHALLOW_DEPTH."""
    kept: list[str] = []
    depth = end = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        token = found[0]
        if token in "[{":
            depth += 1
            if depth == _SHALLOW_DEPTH + 1:
                kept += text[end : found.start()], "null"
        elif token in "]}":
            depth -= 1
            if depth == _SHALLOW_DEPTH:
                end = found.end()
    return "".join([*kept, text[end:]]) if depth <= _SHALLOW_DEPTH else ""
