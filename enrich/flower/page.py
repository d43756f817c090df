"""The handlers for /enrichment, /enrichment.json and /metrics, and the link in Flower's navigation.

Each lets in whom Flower's own pages let in. Servers are asked on two threads of their own, never
on the event loop nor on the threads with which Flower asks its workers.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import prometheus_client
from flower.views import BaseHandler
from tornado import web
from tornado.template import Loader, Template

from enrich.models import Outcome, RunRecord
from enrich.status import realtime
from enrich.status.durations import span
from enrich.status.health import Health, as_json, health_of, told, unsaid
from enrich.status.reader import StatusReader
from enrich.status.report import IndexBacklog, Status

TEMPLATES = Path(__file__).parent / "templates"
REFRESH_SECONDS = 10

#: More rows than this help nobody; `python -m enrich status` has all of them.
INDICES_SHOWN = 100
PARTITIONS_SHOWN = 50

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="enrichment")


@dataclass(frozen=True)
class View:
    """The status as the page words it."""

    status: Status

    partitions_shown = PARTITIONS_SHOWN

    @cached_property
    def health(self) -> Health:
        return health_of(self.status)

    @property
    def others(self) -> list[tuple[str, str]]:
        """The reasons beside the first: word and sentence."""
        return [
            (reason.word.value, told(reason.sentence, reason.remedy))
            for reason in self.health.reasons[1:]
        ]

    @property
    def unsaid(self) -> list[str]:
        return unsaid(self.status, self.health)

    @property
    def word(self) -> str:
        """The state of the runs in one word."""
        if any(problem.startswith("Redis") for problem in self.status.problems):
            return "unknown"
        if self.status.paused:
            return "paused"
        last = self.last
        if last is None:
            return "waiting"
        if last.state == "halted":
            # Also while it still counts as active: its open chunks are being put back.
            return "halted"
        return "idle" if self.status.active_run is None else "running"

    @property
    def sentence(self) -> str:
        """What the word means here, and what would change it."""
        last = self.last
        match self.word:
            case "unknown":
                return "Redis does not answer, so the state of the runs is not known."
            case "paused":
                return "No new work is handed out until `python -m enrich resume`."
            case "waiting":
                return "No run yet: beat's next tick begins the first."
            case "halted" if last is not None:
                return f"Run #{last.number} stopped: {last.halt_reason or 'no reason was given'}"
            case "idle" if last is not None and last.more:
                why = f": {last.left_because}" if last.left_because else ""
                return f"The last run left work for the next one{why}."
            case "idle":
                return "The last run has ended; the next tick looks for new logs."
        return "A run is active."

    @property
    def last(self) -> RunRecord | None:
        """The run in the middle of the page: the active one, or else the last."""
        runs = self.status.last_runs
        return self.status.active_run or (runs[0] if runs else None)

    @property
    def indices(self) -> list[tuple[str, IndexBacklog]]:
        """The indices with most to do first, then by name; not more than fit on a page."""
        if self.status.backlog is None:
            return []
        rows = self.status.backlog.by_index.items()
        ordered = sorted(rows, key=lambda row: (-row[1].without_vector, -row[1].failed, row[0]))
        return ordered[:INDICES_SHOWN]

    @property
    def indices_left_out(self) -> int:
        backlog = self.status.backlog
        return max(0, len(backlog.by_index) - INDICES_SHOWN) if backlog else 0

    @staticmethod
    def outcomes(run: RunRecord) -> list[tuple[str, int]]:
        return [(o.value.replace("_", " "), getattr(run, o.value)) for o in Outcome]

    @staticmethod
    def percent(part: int, whole: int) -> str:
        """Rounded down: 100 % is said only of all."""
        return f"{int(1000 * part / whole) / 10:g}" if whole else "0"

    @staticmethod
    def clock(time: datetime | str | None) -> str:
        """To the second, in UTC."""
        if isinstance(time, str):
            try:
                time = datetime.fromisoformat(time)
            except ValueError:
                return str(time)
        if time is None:
            return "–"
        return (time.astimezone(UTC) if time.tzinfo else time).strftime("%Y-%m-%d %H:%M:%S")

    @staticmethod
    def usd(amount: float) -> str:
        # Small runs cost hundredths of a cent, and "$0.00" would read as "free".
        return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


class _Handler(BaseHandler):  # type: ignore[misc]
    """A page that reads the status."""

    def initialize(self, reader: StatusReader) -> None:
        self._reader = reader

    async def read(self) -> Status:
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(_threads, self._reader.read)).status


class EnrichmentPage(_Handler):
    """GET /enrichment"""

    @web.authenticated
    async def get(self) -> None:
        status = await self.read()
        if self.application.options.auto_refresh:
            # As a header, since Flower's base template leaves no room in <head> for a <meta>.
            self.set_header("Refresh", str(REFRESH_SECONDS))
        self.set_header("Cache-Control", "no-store")
        self.render(
            "enrichment.html", view=View(status), status=status, span=span, realtime=realtime
        )


class EnrichmentJson(_Handler):
    """GET /enrichment.json: what `python -m enrich status --json` prints."""

    @web.authenticated
    async def get(self) -> None:
        status = await self.read()
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(as_json(status)))


class Metrics(BaseHandler):  # type: ignore[misc]
    """GET /metrics, in place of Flower's.

    Flower's would ask our servers on the event loop, and gives its numbers, which now name the
    projects, to anyone who can reach the port, whatever authentication is set.
    """

    @web.authenticated
    async def get(self) -> None:
        self.application.purge_offline_worker_metrics()
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(_threads, prometheus_client.generate_latest)
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(body)


class Templates(Loader):
    """Flower's templates, with ours beside them and one more link in the navigation."""

    LINK = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'enrichment' %} active{% end %}"
            href="{{ reverse_url('enrichment') }}"
            {% if active_tab == 'enrichment' %}aria-current="page"{% end %}>Enrichment</a>
        </li>
      """

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        # Flower names its templates flatly, so nothing is relative to a parent.
        return name

    def _create_template(self, name: str) -> Template:
        ours = TEMPLATES / name
        if ours.exists():
            return Template(ours.read_text(encoding="utf-8"), name=name, loader=self)
        if name != "navbar.html":
            return super()._create_template(name)
        text = (Path(self.root) / name).read_text(encoding="utf-8")
        # The first list is the one of the pages. Without it, the page has no link and still works.
        return Template(text.replace("</ul>", self.LINK + "</ul>", 1), name=name, loader=self)
