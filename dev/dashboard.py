"""The dashboard for Grafana; `make dashboard` writes it to deploy/grafana/dashboards/enrich.json.

Of a job with several targets each figure is shown once, as alerts come once: see
deploy/prometheus/enrich-rules.yml.
"""

from __future__ import annotations

from typing import NamedTuple

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

from enrich.status.reasons import Word

UID = "enrich"
SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${source}")

#: Of 24 columns, and in units of some 30 pixels.
SMALL, WIDE = (4, 4), (8, 8)

#: The word of the health → its colour.
COLOURS = {
    Word.UNKNOWN: "purple",
    Word.HALTED: "red",
    Word.DEGRADED: "orange",
    Word.PAUSED: "blue",
    Word.LATE: "yellow",
    Word.WORKING: "semi-dark-green",
    Word.HEALTHY: "green",
}


class Shown(NamedTuple):
    """One figure (`stat`), one chart (`timeseries`), or states over time (`statetimeline`)."""

    title: str
    #: Legend → expression in PromQL. `@` stands for the labels of the chosen job.
    lines: dict[str, str]
    unit: str = "short"
    told: str = ""
    kind: str = "timeseries"
    stacked: bool = False
    #: From here on it is yellow, and red; with `falling`, below.
    limits: tuple[float, float] | None = None
    falling: bool = False


def figure(title: str, expression: str, unit: str = "short", **more: object) -> Shown:
    return Shown(title, {title: expression}, unit, kind="stat", **more)  # type: ignore[arg-type]


def most(expression: str, *labels: str) -> str:
    """Over the targets of a job."""
    return f"max by ({', '.join(labels)}) ({expression})" if labels else f"max({expression})"


def rate(counter: str, *labels: str) -> str:
    return most(f"rate({counter}[$__rate_interval])", *labels)


def quantile(share: float, histogram: str, window: str = "$__rate_interval") -> str:
    each = most(f"rate({histogram}_bucket@[{window}])", "group", "le")
    return f"histogram_quantile({share}, sum by (le) ({each}))"


PENDING = "sum(max by (project) (enrich_project_pending_logs@))"
OLDEST = most("enrich_oldest_unvectorized_age_seconds@")
WRITTEN = most("rate(enrich_vectors_total@[10m])")
BY_STATE = "sum by (state) (max by (index, state) (enrich_backlog_logs@))"
WITH_VECTOR = 'sum(max by (index) (enrich_backlog_logs@{state="with_vector"}))'
SPENT, LIMIT = most("enrich_spent_today_usd@"), most("enrich_cost_limit_usd@")

ROWS: dict[str, list[Shown]] = {
    "Health": [
        Shown("Health", {"{{word}}": f"{most('enrich_health_word@', 'word')} == 1"}, kind="word"),
        Shown(
            "Why",
            {"{{reason}}": f"{most('enrich_health@', 'reason')} == 1"},
            told="`python -m enrich status` tells it in words, with the command that mends it.",
            kind="word",
        ),
        figure("Logs that wait", PENDING),
        figure("Oldest of them", OLDEST, "s", limits=(3600, 86400)),
        figure("Last tick", f"time() - {most('enrich_last_tick_timestamp_seconds@')}", "s"),
        figure("Workers", most('enrich_workers@{state="alive"}'), limits=(1, 1), falling=True),
        Shown(
            "Reasons over time",
            {"{{reason}}": f"{most('enrich_health@', 'reason')} == 1"},
            kind="statetimeline",
        ),
        Shown("Servers", {"{{server}}": most("enrich_up@", "server")}, kind="statetimeline"),
        Shown(
            "Run and pause",
            {"a run is active": most("enrich_active_run@"), "paused": most("enrich_paused@")},
            kind="statetimeline",
        ),
    ],
    "Backlog and age": [
        figure("Coverage", f"{WITH_VECTOR} / sum({BY_STATE})", "percentunit"),
        figure("Time left at this rate", f"{PENDING} / ({WRITTEN} > 0)", "s"),
        figure("Indices not counted", "count(max by (index) (enrich_index_not_counted@))"),
        Shown("ERROR logs by state", {"{{state}}": BY_STATE}, stacked=True),
        Shown(
            "Logs that wait, the ten projects with most",
            {"{{project}}": f"topk(10, {most('enrich_project_pending_logs@', 'project')})"},
            stacked=True,
        ),
        Shown(
            "Age of the oldest, the ten projects with the oldest",
            {
                "{{project}}": "topk(10, "
                + most("enrich_project_oldest_unvectorized_age_seconds@", "project")
                + ")"
            },
            "s",
        ),
    ],
    "Rate and outcomes": [
        Shown("Vectors written", {"vectors": rate("enrich_vectors_total@")}, "cps"),
        Shown(
            "Documents by outcome",
            {"{{outcome}}": rate("enrich_documents_total@", "outcome")},
            "cps",
            stacked=True,
        ),
        Shown(
            "Failures, errors and retries",
            {
                "failed": rate('enrich_documents_total@{outcome="failed"}'),
                "errors": rate("enrich_errors_total@"),
                "retries": rate("enrich_retries_total@"),
            },
            "cps",
        ),
        Shown(
            "Runs that ended, within an hour",
            {"{{state}}": most("increase(enrich_runs_ended_total@[1h])", "state")},
            stacked=True,
        ),
        Shown(
            "Duration of runs",
            {
                "half": quantile(0.5, "enrich_run_duration_seconds", "6h"),
                "95 %": quantile(0.95, "enrich_run_duration_seconds", "6h"),
            },
            "s",
        ),
        Shown(
            "Duration of chunks",
            {
                "half": quantile(0.5, "enrich_chunk_duration_seconds"),
                "95 %": quantile(0.95, "enrich_chunk_duration_seconds"),
            },
            "s",
        ),
    ],
    "Money": [
        figure("Spent today", SPENT, "currencyUSD"),
        figure("Spent this month", most("enrich_spent_month_usd@"), "currencyUSD"),
        figure("Saved today", most("enrich_saved_today_usd@"), "currencyUSD"),
        figure("Saved this month", most("enrich_saved_month_usd@"), "currencyUSD"),
        Shown(
            "Cost of an hour",
            {"all": most("increase(enrich_cost_usd_total@[1h])")},
            "currencyUSD",
        ),
        Shown(
            "Spent today by project",
            {"{{project}}": most("enrich_spent_today_by_project_usd@", "project")},
            "currencyUSD",
            stacked=True,
        ),
    ],
    "Quota and pauses": [
        figure(
            "Used of the day's limit",
            f"{SPENT} / {LIMIT}",
            "percentunit",
            told="Of ENRICH_MAX_COST_PER_DAY; nothing where there is no limit.",
            limits=(0.8, 1),
        ),
        figure("Limit of a day", LIMIT, "currencyUSD"),
        Shown(
            "Used of the API's quota a minute",
            {"{{of}}": most("enrich_quota_used_ratio@", "of")},
            "percentunit",
            told="By all callers together, of what is set or what the provider says.",
        ),
        Shown(
            "The API's quota a minute",
            {"{{of}}": most("enrich_quota_limit_per_minute@", "of")},
        ),
        Shown(
            "Pauses that the API asked for",
            {"pauses": most("increase(enrich_rate_limited_total@[$__rate_interval])")},
        ),
        Shown(
            "Share of time in which somebody paused",
            {"paused": rate("enrich_paused_seconds_total@")},
            "percentunit",
            told="Above 100 % where several workers paused at once.",
        ),
    ],
    "Embeddings API and cache": [
        figure("Vectors in the cache", most("enrich_cache_entries@")),
        figure("From the cache, of all", most("enrich_cache_hit_ratio@"), "percentunit"),
        Shown(
            "Requests and texts",
            {
                "requests": rate("enrich_api_requests_total@"),
                "texts": rate("enrich_api_inputs_total@"),
            },
            "cps",
        ),
        Shown("Tokens", {"tokens": rate("enrich_api_tokens_total@")}, "cps"),
        Shown("Masked places", {"places": rate("enrich_masked_places_total@")}, "cps"),
        Shown(
            "Where vectors come from",
            {
                "{{outcome}}": rate(
                    'enrich_documents_total@{outcome=~"embedded|cached|reused|duplicate"}',
                    "outcome",
                )
            },
            "cps",
            stacked=True,
        ),
    ],
    "Workers and queues": [
        Shown("Workers", {"{{state}}": most("enrich_workers@", "state")}),
        Shown("Messages in queues", {"{{queue}}": most("enrich_queue_messages@", "queue")}),
        Shown("Chunks made", {"chunks": rate("enrich_chunks_total@")}, "cps"),
        Shown(
            "Ticks that began no run, messages that were dropped; within an hour",
            {
                "ticks": most("increase(enrich_ticks_skipped_total@[1h])"),
                "messages": most("increase(enrich_messages_dropped_total@[1h])"),
            },
        ),
        Shown(
            "Since when a run waits to be recorded",
            {"lag": most("enrich_history_lag_seconds@")},
            "s",
        ),
    ],
    "Consumer of Kafka": [
        Shown(
            "Consumers",
            {"{{group}}: {{doing}}": most("enrich_realtime_consumers@", "group", "doing")},
            stacked=True,
        ),
        Shown(
            "Messages that wait",
            {
                "{{group}}: {{topic}}": "sum by (group, topic) (max by (group, topic, partition) "
                "(enrich_realtime_lag_messages@))"
            },
        ),
        Shown(
            "For how long a partition has not moved",
            {"{{group}}: {{topic}}": most("enrich_realtime_standing_seconds@", "group", "topic")},
            "s",
        ),
        Shown(
            "Messages by outcome",
            {"{{group}}: {{outcome}}": rate("enrich_realtime_messages_total@", "group", "outcome")},
            "cps",
            stacked=True,
        ),
        Shown(
            "From a log to its vector",
            {
                "half": quantile(0.5, "enrich_realtime_log_to_vector_seconds"),
                "99 %": quantile(0.99, "enrich_realtime_log_to_vector_seconds"),
            },
            "s",
        ),
        Shown(
            "Messages that hold no log, by why",
            {"{{group}}: {{code}}": rate("enrich_realtime_poison_total@", "group", "code")},
            "cps",
            stacked=True,
        ),
        Shown("Batches", {"{{group}}": rate("enrich_realtime_batches_total@", "group")}, "cps"),
        Shown(
            "Cost of an hour",
            {"{{group}}": most("increase(enrich_realtime_cost_usd_total@[1h])", "group")},
            "currencyUSD",
        ),
        Shown(
            "Last batch",
            {
                "{{group}}": "time() - "
                + most("enrich_realtime_last_batch_timestamp_seconds@", "group")
            },
            "s",
        ),
    ],
}

_Panel = stat.Panel | timeseries.Panel | statetimeline.Panel


def size(shown: Shown) -> tuple[int, int]:
    """Width and height."""
    return SMALL if shown.kind in ("stat", "word") else WIDE


def expression(written: str) -> str:
    """With the labels of the job in place of `@`."""
    return written.replace("@{", '{job="$job", ').replace("@", '{job="$job"}')


def _panel(shown: Shown) -> _Panel:
    panel: _Panel
    if shown.kind in ("stat", "word"):
        panel = _stat(shown)
    elif shown.kind == "statetimeline":
        panel = _states()
    else:
        panel = _chart(shown)
    panel.title(shown.title).datasource(SOURCE).unit(shown.unit)
    if shown.told:
        panel.description(shown.told)
    for place, (legend, written) in enumerate(shown.lines.items()):
        query = prometheus.Dataquery().expr(expression(written)).legend_format(legend)
        query.datasource(SOURCE).ref_id(chr(ord("A") + place))
        panel.with_target(query.instant() if shown.kind in ("stat", "word") else query.range())
    return panel


def _stat(shown: Shown) -> stat.Panel:
    panel = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.graph_mode(kinds.BigValueGraphMode.NONE).color_mode(kinds.BigValueColorMode.BACKGROUND)
    if shown.kind == "word":
        panel.text_mode(kinds.BigValueTextMode.NAME).no_value("nothing")
        for word, colour in COLOURS.items():
            fixed = {"mode": "fixed", "fixedColor": colour}
            panel.override_by_name(
                word.value, [models.DynamicConfigValue(id_val="color", value=fixed)]
            )
        return panel.color_scheme(_fixed("blue"))
    if shown.limits is None:
        return panel.color_mode(kinds.BigValueColorMode.NONE)
    first, second = shown.limits
    colours = ("red", "yellow", "green") if shown.falling else ("green", "yellow", "red")
    steps = [
        models.Threshold(value=value, color=colour)
        for value, colour in zip((None, first, second), colours, strict=True)
    ]
    return panel.thresholds(
        dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    )


def _chart(shown: Shown) -> timeseries.Panel:
    panel = timeseries.Panel().min(0).line_width(1).fill_opacity(25 if shown.stacked else 8)
    panel.show_points(kinds.VisibilityMode.NEVER)
    panel.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if shown.stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    return panel


def _states() -> statetimeline.Panel:
    words = {
        "0": models.ValueMappingResult(text="no", color="transparent", index=0),
        "1": models.ValueMappingResult(text="yes", color="semi-dark-blue", index=1),
    }
    return statetimeline.Panel().mappings([models.ValueMap(options=words)])


def _fixed(colour: str) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(colour)


def page() -> str:
    """The dashboard as JSON."""
    source = dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
    job = dashboard.QueryVariable("job").label("Deployment").datasource(SOURCE)
    job.query("label_values(enrich_up, job)").refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    made = (
        dashboard.Dashboard("enrich")
        .uid(UID)
        .description("Vectors for ERROR logs: health, backlog, money, workers, consumers")
        .tags(["enrich"])
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
        .with_variable(job)
    )
    number, top = 0, 0
    for title, row in ROWS.items():
        number += 1
        heading = dashboard.Row(title).id(number)
        made.with_row(heading.grid_pos(models.GridPos(h=1, w=24, x=0, y=top)))
        left, top, height = 0, top + 1, 0
        for shown in row:
            width, own_height = size(shown)
            if left + width > 24 or own_height != height:
                left, top, height = 0, top + height, own_height
            number += 1
            place = models.GridPos(h=own_height, w=width, x=left, y=top)
            made.with_panel(_panel(shown).id(number).grid_pos(place))
            left += width
        top += height
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


if __name__ == "__main__":
    print(page(), end="")
