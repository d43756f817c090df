"""Where a log has its level, text, time, service and trace: one description, used by everyone."""

from __future__ import annotations

from enrich.schema.levels import Levels
from enrich.schema.presets import AUTO, LOGLENS, PRESETS, schema_of
from enrich.schema.shape import Schema, Shape

__all__ = ["AUTO", "LOGLENS", "PRESETS", "Levels", "Schema", "Shape", "schema_of"]
