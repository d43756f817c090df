"""What is shown of a log that was searched for, and which text it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.errors import TextUnusable
from enrich.log_store.queries import RawHit
from enrich.schema import LOGLENS, Schema
from enrich.settings import Settings, rewrite_of
from enrich.text.extract import fingerprint, text_of

#: The digest of its text, as it was enriched.
DIGEST = "ai_text_sha256"

_SHOWN = ("message", "level", "timestamp", "service_name", "trace_id")


class ShownLogs:
    """Reads logs of a schema."""

    def __init__(self, schema: Schema, settings: Settings) -> None:
        self._schema = schema
        self._rewrite = rewrite_of(settings)
        #: What a search has to bring along.
        self.fields: Sequence[str] = (
            _SHOWN if schema.has_fields_of(LOGLENS) else schema.shown_fields
        )

    def key(self, hit: RawHit) -> str:
        """The text of a log. Its digest is only what somebody wrote beside it: taken for the text,
        one log could hide another project's."""
        try:
            return fingerprint(
                text_of({"message": self._schema.message(hit.source)}, self._rewrite)
            )
        except TextUnusable:
            return str(hit.source.get(DIGEST))

    def of(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """What a log is shown with, under the same names whatever its shape."""
        if self.fields is _SHOWN:
            return {name: value for name, value in source.items() if name != DIGEST}
        told = {
            "message": self._schema.message(source),
            "level": self._schema.level(source),
            "timestamp": self._schema.time(source),
            "service_name": self._schema.service(source),
            "trace_id": self._schema.trace(source),
        }
        return {name: value for name, value in told.items() if value is not None}
