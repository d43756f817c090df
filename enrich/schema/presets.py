"""The shapes that are known by name, and the schema that settings describe. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enrich.schema.levels import levels_of
from enrich.schema.shape import Schema, Shape

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class _Preset:
    """A shape but for the levels that are wanted."""

    title: str
    level_field: str
    number_field: str = ""
    text_fields: tuple[str, ...]
    timestamp_field: str
    service_fields: tuple[str, ...]
    trace_fields: tuple[str, ...]
    exact: bool = False


#: By the values of ENRICH_SCHEMA. Those that more particular names tell apart come first: `auto`
#: takes the first that fits.
PRESETS = {
    # OpenSearch's Simple Schema for Observability; the collector's exporter puts the resource's
    # attributes right under `resource`.
    "otel": _Preset(
        title="OpenTelemetry",
        level_field="severity.text",
        number_field="severity.number",
        text_fields=(
            "body",
            "attributes.exception.type",
            "attributes.exception.message",
            "attributes.exception.stacktrace",
        ),
        timestamp_field="@timestamp",
        service_fields=("resource.attributes.service.name", "resource.service.name"),
        trace_fields=("traceId", "trace_id"),
    ),
    # Data Prepper writes the dots of an attribute's name as @.
    "otel-data-prepper": _Preset(
        title="OpenTelemetry by Data Prepper",
        level_field="severityText",
        number_field="severityNumber",
        text_fields=(
            "body",
            "log.attributes.exception@type",
            "log.attributes.exception@message",
            "log.attributes.exception@stacktrace",
        ),
        timestamp_field="time",
        service_fields=("serviceName", "resource.attributes.service@name"),
        trace_fields=("traceId",),
    ),
    "ecs": _Preset(
        title="the Elastic Common Schema",
        level_field="log.level",
        text_fields=("message", "error.type", "error.message", "error.stack_trace"),
        timestamp_field="@timestamp",
        service_fields=("service.name",),
        trace_fields=("trace.id",),
    ),
    "loglens": _Preset(
        title="LogLens",
        level_field="level",
        text_fields=("message",),
        timestamp_field="timestamp",
        service_fields=("service_name",),
        trace_fields=("trace_id",),
        exact=True,
    ),
    # Fluent Bit and Docker: the line as it was printed is `log`.
    "fluent": _Preset(
        title="Fluent Bit or Docker",
        level_field="level",
        text_fields=("log",),
        timestamp_field="@timestamp",
        service_fields=(
            "kubernetes.labels.app.kubernetes.io/name",
            "kubernetes.labels.app",
            "kubernetes.container_name",
            "container_name",
        ),
        trace_fields=("trace_id",),
    ),
}


def schema_of(
    name: str,
    levels: Sequence[str],
    *,
    level_field: str = "",
    text_fields: Sequence[str] = (),
    timestamp_field: str = "",
    service_field: str = "",
    trace_field: str = "",
) -> Schema:
    """The schema of that name; a field that is given stands in place of the preset's.

    Raises:
        KeyError: there is no such schema.
        ValueError: a level is none, see `levels_of`.
    """
    names = PRESETS if name == AUTO else (name,)
    shapes: list[Shape] = []
    for each in names:
        preset = PRESETS[each]
        # Only what nothing is said about stays as strict as it was before there was a choice.
        exact = preset.exact and not level_field and name != AUTO
        number_field = "" if level_field else preset.number_field
        shape = Shape(
            name=each,
            title=preset.title,
            level_field=level_field or preset.level_field,
            number_field=number_field,
            text_fields=tuple(text_fields) or preset.text_fields,
            timestamp_field=timestamp_field or preset.timestamp_field,
            service_fields=(service_field,) if service_field else preset.service_fields,
            trace_fields=(trace_field,) if trace_field else preset.trace_fields,
            levels=levels_of(levels, exact=exact, severities=bool(number_field)),
            exact_level=exact,
            plain_text=preset.exact and not text_fields and name != AUTO,
        )
        alike = any(replace(known, name=each, title=shape.title) == shape for known in shapes)
        if not alike:
            shapes.append(shape)
    return Schema(tuple(shapes))


#: What holds where nothing is set.
LOGLENS = schema_of("loglens", ("ERROR",))
