"""What the page's buttons do, and what they say beforehand: run now, pause, resume, retry failed.

Each does what the command of the same name does, and is there only where Flower is not read-only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from enrich import wiring
from enrich.backfill.publisher import Publisher
from enrich.errors import EnrichError
from enrich.flower import words
from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.settings import Settings
from enrich.status.failed_logs import put_back
from enrich.status.overview import Overview

log = logging.getLogger(__name__)

PAUSED = "enrichment is paused: resume it first"


class Refused(EnrichError):
    """Nothing was done, for a reason that the operator can see."""


class Workers(Publisher, Protocol):
    """The workers from outside."""

    def require(self) -> None:
        """Raises EnrichError where none would take what is sent."""


@dataclass(frozen=True)
class Order:
    """A button: its words, its command on the terminal, what it is about to do, and the deed."""

    name: str
    label: str
    command: str
    #: In sentences, from the overview; the first says the deed.
    foretell: Callable[[Overview], list[str]]
    #: Does it, and says what was done. Raises EnrichError.
    do: Callable[[], str]


class Orders:
    """The four, on servers of their own connections."""

    def __init__(
        self, settings: Settings, ledger: Ledger, store: LogStore, workers: Workers
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._workers = workers
        self.all: dict[str, Order] = {
            order.name: order
            for order in (
                Order("run", "Run now", "python -m enrich run", self._before_run, self._run),
                Order("pause", "Pause", "python -m enrich pause", _before_pause, self._pause),
                Order("resume", "Resume", "python -m enrich resume", _before_resume, self._resume),
                Order(
                    "retry-failed",
                    "Retry failed",
                    "python -m enrich retry-failed",
                    _before_retry,
                    self._retry_failed,
                ),
            )
        }

    def offered(self, overview: Overview) -> list[Order]:
        """Those that make sense now."""
        status = overview.status
        wanted = ["resume"] if status.paused else ["run", "pause"]
        if status.active_run is not None and not status.paused:
            wanted = ["pause"]
        if status.backlog is not None and status.backlog.failed:
            wanted.append("retry-failed")
        return [self.all[name] for name in wanted]

    # -- deeds

    def _run(self) -> str:
        self._workers.require()
        opened = self._ledger.runs.open("manual", self._settings.interval_seconds)
        if opened.verdict == "paused":
            raise Refused(PAUSED)
        if opened.verdict != "opened":
            number = self._ledger.records.of(opened.run).number
            return f"Run #{number} was active already; nothing else was begun."
        self._workers.scan_page(opened.run, 1)
        log.info("run #%d was begun on Flower's page", opened.number)
        return f"Run #{opened.number} has begun."

    def _pause(self) -> str:
        self._ledger.controls.pause()
        log.warning("enrichment was paused on Flower's page")
        return "Enrichment is paused."

    def _resume(self) -> str:
        self._ledger.controls.resume()
        log.warning("enrichment was resumed on Flower's page")
        active = self._ledger.runs.active()
        if active:
            backfill = wiring.build_backfill(self._settings, self._workers)
            try:
                # The tick's own check: publishes whatever the run waits for; doubles are harmless.
                backfill.recover(active)
            finally:
                backfill.close()
        return "Enrichment goes on."

    def _retry_failed(self) -> str:
        done = put_back(self._store, self._ledger, None)
        log.warning("%d failed logs were put back in line on Flower's page", done.logs)
        told = f"{done.logs:,} logs are back in line: the next run tries them again."
        if done.stuck:
            names = ", ".join(words.name(index) for index in done.stuck[:3])
            raise Refused(f"{told} Some marks could not be taken off in {names}: no writes there?")
        return told

    # -- what they are about to do

    def _before_run(self, overview: Overview) -> list[str]:
        status = overview.status
        backlog = status.backlog
        if backlog is None:
            waiting = "How many logs wait is not known while OpenSearch does not answer."
        else:
            number = backlog.gaps.at_least(f"{backlog.without_vector:,}")
            indices = sum(1 for counts in backlog.by_index.values() if counts.without_vector)
            where = "1 index" if indices == 1 else f"{indices:,} indices"
            waiting = f"{number} logs without a vector wait in {where}."
        said = ["A run begins now and does not wait for beat's next tick.", waiting]
        each = _cost_of_a_vector(overview)
        if backlog is not None and backlog.without_vector and each:
            said.append(
                f"At what vectors have cost this month, that is about "
                f"{words.money(each * backlog.without_vector)}; `python -m enrich plan` says it "
                "exactly."
            )
        if self._settings.enrich_max_cost_per_day:
            said.append(
                f"It stops at ENRICH_MAX_COST_PER_DAY: {words.usd(status.spent_today_usd)} of "
                f"{words.usd(self._settings.enrich_max_cost_per_day)} are spent today."
            )
        return said


def _before_pause(overview: Overview) -> list[str]:
    active = overview.status.active_run
    said = ["No run begins and no page of logs is read any more, until somebody resumes it."]
    if active is not None:
        said.append(
            f"Run #{active.number} stays active: chunks that workers have taken are finished, "
            f"{active.chunks_open:,} are open now; the rest waits."
        )
    said.append("New ERROR logs have no vector meanwhile. Consumers of Kafka go on.")
    return said


def _before_resume(overview: Overview) -> list[str]:
    active = overview.status.active_run
    if active is None:
        return ["Work goes on: beat's next tick begins a run."]
    return [f"Work goes on: run #{active.number} continues where it stands."]


def _before_retry(overview: Overview) -> list[str]:
    backlog = overview.status.backlog
    failed = f"{backlog.failed:,}" if backlog is not None else "All"
    said = [
        f"The mark is taken off {failed} logs that failed, in all indices, so that the next run "
        "tries them again."
    ]
    said += [f"{r.logs:,} of them: {words.name(r.code)}." for r in overview.failures[:6]]
    said.append("Those that fail again are marked again; texts that are sent again are paid again.")
    return said


def _cost_of_a_vector(overview: Overview) -> float:
    """USD, at what this month's have cost; 0 where none has."""
    month = overview.sums.month
    return month.runs_cost_usd / month.vectors_written if month.vectors_written else 0.0
