"""The health of the system in one word and one sentence, the worst first, and what to do.

A pure function over the status: Flower's page, `status`, its exit status, the metrics and the log
say the same, because all of them ask here. Each reason stands for itself, with a code that scripts
and alerts may rely on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from enrich.models import RunRecord
from enrich.status import realtime
from enrich.status.durations import span
from enrich.status.reasons import CHECK, QUIET_SECONDS, Reason, quoted
from enrich.status.reasons import Word as Word
from enrich.status.reasons import told as told
from enrich.status.report import Status

_ORDER = list(Word)

#: Runs that are owed to the history for longer than this, and than two intervals, are not just
#: waiting for the next run to end; the alert EnrichHistoryBehind has the same.
HISTORY_LATE_SECONDS = 3600.0

#: Words of a system in which nobody has to do anything.
_GOOD = (Word.PAUSED, Word.WORKING, Word.HEALTHY)

#: All codes, so that a metric has a series for each.
CODES = (
    "redis_unreachable", "opensearch_unreachable", "counted_in_part", "halted", "no_worker",
    "workers_disagree", "two_deployments", "deferred", "retrying", "stuck", "skipped", "failed",
    "other_models", "history_behind", "paused", "no_tick", "late_tick", "behind", "budget", "cap",
    *realtime.CODES,
)  # fmt: skip


class Health(BaseModel):
    """The worst reason, and all of them."""

    word: Word
    sentence: str
    remedy: str = ""
    exit_status: int = 0
    #: Worst first; empty where all is well.
    reasons: list[Reason] = []

    @property
    def line(self) -> str:
        """`Halted: no worker is alive …: start one with …`"""
        return f"{self.word.value}: {told(self.sentence, self.remedy)}"

    @property
    def well(self) -> bool:
        return self.word in _GOOD

    @property
    def problems(self) -> list[str]:
        """The reasons for which somebody has to do something, in sentences."""
        return [
            told(reason.sentence, reason.remedy)
            for reason in self.reasons
            if reason.word not in _GOOD
        ]


def health_of(status: Status) -> Health:
    """Judge a status."""
    found = [
        *_servers(status),
        *_workers(status),
        *_last_run(status),
        *_skipped(status),
        *_history(status),
        *_ticks(status),
        *realtime.reasons(status.realtime, paused=status.paused),
    ]
    reasons = sorted(found, key=lambda reason: _ORDER.index(reason.word))
    if reasons and reasons[0].word not in (Word.WORKING, Word.HEALTHY):
        worst = reasons[0]
        return Health(
            word=worst.word,
            sentence=worst.sentence,
            remedy=worst.remedy,
            exit_status=max(reason.exit_status for reason in reasons),
            reasons=reasons,
        )
    if status.active_run is not None:
        return Health(word=Word.WORKING, sentence=_working(status), reasons=reasons)
    return Health(word=Word.HEALTHY, sentence=_healthy(status), reasons=reasons)


def problems_of(status: Status) -> list[str]:
    """What could not be read, then what is wrong; each once."""
    judged = [p for p in health_of(status).problems if p not in status.problems]
    return [*status.problems, *judged]


def unsaid(status: Status, health: Health) -> list[str]:
    """What could not be read and no reason tells of."""
    said = {reason.sentence for reason in health.reasons}
    return [problem for problem in status.problems if problem not in said]


def as_json(status: Status) -> dict[str, Any]:
    """The status with its health, as `status --json` and /enrichment.json give it."""
    return {
        **status.model_dump(mode="json"),
        "problems": problems_of(status),
        "health": health_of(status).model_dump(mode="json"),
    }


# -- reasons


def _servers(status: Status) -> list[Reason]:
    reasons = []
    in_part = status.backlog.problem if status.backlog is not None else ""
    if in_part:
        reasons.append(
            Reason(
                code="counted_in_part",
                word=Word.DEGRADED,
                sentence=in_part,
                remedy="look at the cluster's health",
                exit_status=3,
            )
        )
    for problem in status.problems:
        if problem == in_part:
            continue
        redis = problem.startswith(("Redis", "REDIS"))
        code = "redis_unreachable" if redis else "opensearch_unreachable"
        reasons.append(Reason(code=code, word=Word.UNKNOWN, sentence=problem, exit_status=3))
    return reasons


def _workers(status: Status) -> list[Reason]:
    reasons = []
    waiting = _waiting(status)
    work = bool(waiting or (status.active_run and status.active_run.state == "running"))
    if work and _nobody_works(status):
        what = f"{_told(status, waiting)} logs wait" if waiting else "a run is active"
        reasons.append(
            Reason(
                code="no_worker",
                word=Word.HALTED,
                sentence=f"no worker is alive, and {what}",
                remedy="start one with `celery -A enrich worker`",
                exit_status=3,
            )
        )
    for sentence in status.disagreements:
        reasons.append(
            Reason(
                code="workers_disagree",
                word=Word.DEGRADED,
                sentence=quoted(sentence),
                remedy="give all workers the same settings and restart them",
                exit_status=1,
            )
        )
    for sentence in status.neighbours:
        reasons.append(
            Reason(
                code="two_deployments",
                word=Word.DEGRADED,
                sentence=quoted(sentence),
                exit_status=1,
            )
        )
    return reasons


def _nobody_works(status: Status) -> bool:
    """Workers note that they live. Those of an older version do not, so that only where nothing
    moves either is their silence a sign."""
    if status.workers_alive:
        return False
    if status.redis_unread:
        return False
    if status.workers_note_themselves:
        return True
    run = status.active_run
    if run is not None:
        return status.quiet_seconds is not None and status.quiet_seconds > QUIET_SECONDS
    return status.last_tick is None and not status.last_runs


def _last_run(status: Status) -> list[Reason]:
    """Of the run that is shown: the active one once it has got anywhere, or else the last."""
    reasons: list[Reason] = []
    run = _telling(status)
    if run is None:
        return reasons
    name = f"run #{run.number}"
    if run.state == "halted":
        reasons.append(
            Reason(
                code="halted",
                word=Word.HALTED,
                sentence=f"{name} stopped: {quoted(run.halt_reason) or 'no reason was given'}",
                remedy="" if run.halt_reason else CHECK,
                exit_status=3,
            )
        )
    elif run.deferred and run.state != "abandoned":
        reasons += _deferred(run, name)
    active = status.active_run
    if active is not None and active.state == "running":
        if active.retries and not active.vectors_written and not active.deferred:
            why = next(iter(active.retry_reasons), "its work failed so far")
            reasons.append(
                Reason(
                    code="retrying",
                    word=Word.DEGRADED,
                    sentence=f"run #{active.number} has written nothing yet and tries again "
                    f"({active.retries:,} retries): {quoted(why)}",
                    exit_status=1,
                )
            )
        elif active.chunks_open and (status.quiet_seconds or 0) > QUIET_SECONDS:
            reasons.append(
                Reason(
                    code="stuck",
                    word=Word.DEGRADED,
                    sentence=f"run #{active.number} has not moved for "
                    f"{span(status.quiet_seconds or 0)}, with {active.chunks_open:,} chunks open",
                    remedy="see the workers' log",
                    exit_status=1,
                )
            )
    if run.failed > run.vectors_written:
        reasons.append(
            Reason(
                code="failed",
                word=Word.DEGRADED,
                sentence=f"{run.failed:,} of the {run.found:,} logs of {name} failed",
                remedy="`python -m enrich failures` says why",
                exit_status=1,
            )
        )
    if run.more and run.state == "finished":
        reasons += _left(status, run)
    return reasons


def _deferred(run: RunRecord, name: str) -> list[Reason]:
    reasons = dict(run.deferral_reasons)
    passing = sum(n for why, n in reasons.items() if "ENRICH_MAX_COST_PER_DAY" in why)
    if passing >= run.deferred:
        return []
    why = next((why for why in reasons if "ENRICH_MAX_COST_PER_DAY" not in why), "")
    return [
        Reason(
            code="deferred",
            word=Word.DEGRADED,
            sentence=f"{name} deferred {run.deferred:,} of {run.found:,} logs"
            + (f": {quoted(why)}" if why else ""),
            remedy=f"the next run tries again; {CHECK}",
            exit_status=3,
        )
    ]


def _left(status: Status, run: RunRecord) -> list[Reason]:
    """What a run left on purpose."""
    limit = status.cost_limit_usd
    if run.stopped_by == "budget" and (not limit or status.spent_today_usd >= limit):
        return [
            Reason(
                code="budget",
                word=Word.LATE,
                sentence=run.left_because,
                remedy="raise it to go on today",
                exit_status=1,
            )
        ]
    if run.stopped_by == "cap" and status.active_run is None:
        return [
            Reason(
                code="cap",
                word=Word.WORKING,
                sentence=run.left_because,
            )
        ]
    return []


def _skipped(status: Status) -> list[Reason]:
    reasons = []
    if status.backlog is not None and status.backlog.of_other_models:
        reasons.append(
            Reason(
                code="other_models",
                word=Word.DEGRADED,
                sentence=f"{_told(status, status.backlog.of_other_models)} logs have a vector of "
                "another model, "
                "which `search` does not find",
                remedy="`python -m enrich check` names the model; set EMBEDDING_MODEL back, or "
                "remove log_vector from them so that they are made again",
                exit_status=1,
            )
        )
    pending = _pending_in_skipped(status)
    if not pending:
        return reasons
    run = _telling(status)
    assert run is not None
    first = next(iter(pending))
    logs = sum(pending.values())
    backlog = status.backlog
    all_of_it = backlog is not None and backlog.whole and not _waiting(status)
    what = "one index" if len(pending) == 1 else f"{len(pending):,} indices"
    whose = "all that wait" if all_of_it else "which wait"
    number = backlog.gaps.within(pending).at_least(f"{logs:,}") if backlog is not None else ""
    told_logs = f" with {number} logs, {whose}," if number else ""
    sentence = f"{what}{told_logs} {'is' if len(pending) == 1 else 'are'} skipped"
    such = "" if len(pending) == 1 else "the largest, " if logs else "one of them, "
    reasons.append(
        Reason(
            code="skipped",
            word=Word.DEGRADED,
            sentence=f"{sentence}: {such}{quoted(first)}: {quoted(run.skipped_indices[first])}",
            remedy=CHECK,
            exit_status=1,
        )
    )
    return reasons


def _history(status: Status) -> list[Reason]:
    history = status.history
    if history is None or not history.owed:
        return []
    if history.lag_seconds <= max(HISTORY_LATE_SECONDS, 2 * status.interval_seconds):
        return []
    lag = span(history.lag_seconds)
    sentence = (
        f"the record of one run has been missing in enrich-runs for {lag}"
        if history.owed == 1
        else f"{history.owed:,} records of runs are missing in enrich-runs, the first for {lag}"
    )
    why = f": {quoted(history.unwritten)}" if history.unwritten else ""
    return [
        Reason(
            code="history_behind",
            word=Word.DEGRADED,
            sentence=sentence + why,
            remedy=CHECK if why else "`python -m enrich run` writes what is owed when it ends",
            exit_status=1,
        )
    ]


def _ticks(status: Status) -> list[Reason]:
    if status.redis_unread:
        return []
    if status.paused:
        return [
            Reason(
                code="paused",
                word=Word.PAUSED,
                sentence="no new work is handed out",
                remedy="`python -m enrich resume` lets it go on",
            )
        ]
    now = status.read_at or datetime.now(UTC)
    interval = status.interval_seconds
    reasons = []
    waiting = _waiting(status)
    if status.last_tick is None:
        if waiting and status.active_run is None:
            reasons.append(
                Reason(
                    code="no_tick",
                    word=Word.LATE,
                    sentence=f"{_told(status, waiting)} logs wait, and no tick has come yet",
                    remedy="start `celery -A enrich beat`, or take them now with "
                    "`python -m enrich run`",
                    exit_status=1,
                )
            )
    elif interval and now - status.last_tick > timedelta(seconds=2 * interval):
        ago = (now - status.last_tick).total_seconds()
        reasons.append(
            Reason(
                code="late_tick",
                word=Word.LATE,
                sentence=f"the last tick was {span(ago)} ago, two intervals or more",
                remedy="see that `celery -A enrich beat` runs, and a worker",
                exit_status=1,
            )
        )
    elif interval and waiting and status.active_run is None and _behind(status, now):
        reasons.append(
            Reason(
                code="behind",
                word=Word.LATE,
                sentence=f"{_told(status, waiting)} logs wait, the oldest{_counted(status)} since "
                f"{status.backlog.oldest_without_vector if status.backlog else ''}, and no run has "
                "ended within the last two intervals",
                remedy="see that `celery -A enrich beat` runs, and a worker",
                exit_status=1,
            )
        )
    return reasons


def _behind(status: Status, now: datetime) -> bool:
    ended = [run.finished_at for run in status.last_runs if run.finished_at]
    late = timedelta(seconds=2 * status.interval_seconds)
    if ended and now - max(ended) <= late:
        return False
    oldest = status.backlog.oldest_without_vector if status.backlog else None
    try:
        since = datetime.fromisoformat(oldest or "")
    except ValueError:
        return False
    return now - (since if since.tzinfo else since.replace(tzinfo=UTC)) > late


# -- sentences where nothing is wrong


def _working(status: Status) -> str:
    run = status.active_run
    assert run is not None
    left = f", {span(status.seconds_left)} left" if status.seconds_left else ""
    slow = f", slowed down {run.rate_limited:,} times by rate limits" if run.rate_limited else ""
    return (
        f"run #{run.number} has done {run.done:,} of the {run.found:,} logs found so far, "
        f"{run.rate_per_second:,.1f} vectors/s{left}{slow}"
    )


def _healthy(status: Status) -> str:
    backlog = status.backlog
    if backlog is None:
        return "the last run has ended well" if status.last_runs else "no run yet"
    failed = f"; {backlog.failed:,} are marked failed" if backlog.failed else ""
    if backlog.without_vector:
        return f"{backlog.without_vector:,} logs wait for the next run{failed}"
    if not status.last_runs and not backlog.with_vector:
        return f"no ERROR log is there yet, and no run yet{failed}"
    return f"every ERROR log that can have a vector has one{failed}"


# -- what the reasons are made of


def _telling(status: Status) -> RunRecord | None:
    active = status.active_run
    ended = [run for run in status.last_runs if active is None or run.run_id != active.run_id]
    if active is not None and (active.settled or active.state != "running" or not ended):
        return active
    return ended[0] if ended else None


def _told(status: Status, logs: int) -> str:
    """A number that was taken from the backlog, as it may be said."""
    return status.backlog.gaps.at_least(f"{logs:,}") if status.backlog else f"{logs:,}"


def _counted(status: Status) -> str:
    return "" if status.backlog is None or status.backlog.whole else " of those counted"


def _waiting(status: Status) -> int:
    """Logs without a vector that a run would take, as far as they were counted."""
    if status.backlog is None:
        return 0
    if not status.backlog.by_index:
        return status.backlog.without_vector
    run = _telling(status)
    skipped = run.skipped_indices if run else {}
    return sum(
        counts.without_vector
        for index, counts in status.backlog.by_index.items()
        if index not in skipped
    )


def _pending_in_skipped(status: Status) -> dict[str, int]:
    """Skipped indices with their logs without a vector, the most first. Where the backlog is not
    known, all of them, with 0: each had some when the run began."""
    run = _telling(status)
    if run is None or not run.skipped_indices:
        return {}
    if status.backlog is None:
        return dict.fromkeys(sorted(run.skipped_indices), 0)
    pending = {
        index: status.backlog.by_index[index].without_vector
        for index in run.skipped_indices
        if index in status.backlog.by_index
    }
    waiting = {index: count for index, count in pending.items() if count}
    return dict(sorted(waiting.items(), key=lambda pair: (-pair[1], pair[0])))
