"""The handlers of the pages below /enrichment, of the JSON beside them, and of /metrics.

Each lets in whom Flower's own pages let in. What they show is read behind them (`latest`); nothing
here waits for a server for longer than it must.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlparse

import prometheus_client
from flower.views import BaseHandler
from tornado import web

from enrich.errors import EnrichError
from enrich.flower import words
from enrich.flower.latest import THREADS, Latest
from enrich.flower.orders import Order, Orders
from enrich.flower.templating import STATIC, asset_path
from enrich.flower.view import SKIPPED_SHOWN, View, rows_of
from enrich.history.reader import Page as History
from enrich.history.reader import UnknownRun
from enrich.models import RunRecord
from enrich.status import realtime
from enrich.status.durations import span
from enrich.status.health import as_json
from enrich.status.overview import Overview

#: Seconds between two reloads of a page without JavaScript, and between two looks of one with it:
#: while a run is active, and otherwise.
REFRESH_SECONDS = 10
LIVE_SECONDS = (3, 10)

#: Rows of a page of runs or indices.
ROWS = 50

#: Only what comes from this Flower runs, shows or is sent to; and nobody puts a page into theirs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

MOST_NOTICES = 20


class Runs(Protocol):
    """`enrich.history.reader.History`, as far as pages ask it."""

    def runs(self, count: int = 50, *, before: str = "", busy: bool = False) -> History: ...
    def run(self, run: str) -> RunRecord: ...


@dataclass
class Room:
    """What the handlers share."""

    latest: Latest
    history: Runs
    #: None where nothing may be done here.
    orders: Orders | None = None
    shown_settings: dict[str, str] = field(default_factory=dict)
    text_fields: str = "`message`"
    #: What was done, by what stands in the address of the page that says so.
    notices: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def note(self, sentence: str) -> str:
        token = secrets.token_urlsafe(9)
        self.notices[token] = sentence
        while len(self.notices) > MOST_NOTICES:
            self.notices.popitem(last=False)
        return token


class Page(BaseHandler):  # type: ignore[misc]
    """What our pages share."""

    def initialize(self, room: Room) -> None:
        self.room = room

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")

    @property
    def orders(self) -> Orders | None:
        return None if self.application.options.read_only else self.room.orders

    def view_of(self, overview: Overview) -> View:
        return View(
            overview.status,
            overview,
            address=lambda run: str(self.reverse_url("enrichment-run", run)),
            shown_settings=self.room.shown_settings,
            text_fields=self.room.text_fields,
        )

    def show(self, template: str, view: View, *, live: bool = True, **more: Any) -> None:
        self.render(
            template,
            view=view,
            status=view.status,
            overview=view.overview,
            words=words,
            span=span,
            realtime=realtime,
            asset=self._asset,
            live=live and self.application.options.auto_refresh,
            live_seconds=LIVE_SECONDS[view.status.active_run is None],
            refresh_seconds=REFRESH_SECONDS,
            **more,
        )

    def _asset(self, name: str) -> str:
        return str(self.reverse_url("enrichment-static", "")) + asset_path(name)

    def query(self, name: str) -> str:
        # Raw: templates escape by themselves, and Flower's own getter would do it twice.
        return web.RequestHandler.get_argument(self, name, "")[: words.NAME_LENGTH]

    def number(self, name: str) -> int:
        text = self.query(name)
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


class EnrichmentPage(Page):
    """GET /enrichment"""

    @web.authenticated
    async def get(self) -> None:
        overview = await self.room.latest.get()
        self.show(
            "enrichment.html",
            self.view_of(overview),
            orders=self.orders.offered(overview) if self.orders else [],
            notice=self.room.notices.get(self.query("done"), ""),
        )


class RunPage(Page):
    """GET /enrichment/run/ID"""

    @web.authenticated
    async def get(self, id: str) -> None:
        overview = await self.room.latest.get()
        run = await find_run(self.room, overview, id)
        active = overview.status.active_run
        at_work = active is not None and active.run_id == run.run_id
        self.show(
            "enrichment_run.html",
            self.view_of(overview),
            live=at_work,
            run=run,
            chunks=overview.chunks if at_work else [],
            record=[(name, _told(value)) for name, value in run.model_dump(mode="json").items()],
        )


class RunsPage(Page):
    """GET /enrichment/runs?before=ID&empty=1"""

    @web.authenticated
    async def get(self) -> None:
        before, empty = self.query("before"), self.query("empty") == "1"
        overview = await self.room.latest.get()
        found = await runs_of(self.room, ROWS, before, empty)
        self.show(
            "enrichment_runs.html",
            self.view_of(overview),
            live=False,
            rows=rows_of(found.runs, _number_above(found.runs, before, overview)),
            problem=found.problem,
            before=before,
            empty=empty,
            next_before=found.next,
        )


class IndicesPage(Page):
    """GET /enrichment/indices?q=PART&page=N"""

    @web.authenticated
    async def get(self) -> None:
        wanted = self.query("q")
        view = self.view_of(await self.room.latest.get())
        found = [row for row in view.all_indices if wanted.lower() in row[0].lower()]
        pages = max(1, -(-len(found) // ROWS))
        page = min(max(1, self.number("page")), pages)
        first = (page - 1) * ROWS

        def address(number: int) -> str:
            query = {"q": wanted, "page": number} if wanted else {"page": number}
            return f"{self.reverse_url('enrichment-indices')}?{urlencode(query)}"

        self.show(
            "enrichment_indices.html",
            view,
            live=False,
            q=wanted,
            found=len(found),
            first=first + 1,
            indices=found[first : first + ROWS],
            page=page,
            pages=pages,
            page_address=address,
        )


class OrderPage(Page):
    """GET /enrichment/order/NAME says what a button will do, POST does it."""

    @web.authenticated
    async def get(self, name: str) -> None:
        await self._ask(self._order(name))

    @web.authenticated
    async def post(self, name: str) -> None:
        order = self._order(name)
        try:
            done = await on_thread(order.do)
        except EnrichError as error:
            self.set_status(409)
            await self._ask(order, str(error).rstrip("."))
            return
        await self.room.latest.anew()
        self.redirect(
            f"{self.reverse_url('enrichment')}?done={quote(self.room.note(done))}", status=303
        )

    async def _ask(self, order: Order, problem: str = "") -> None:
        overview = await (self.room.latest.anew() if problem else self.room.latest.get())
        self.show(
            "enrichment_order.html",
            self.view_of(overview),
            live=False,
            order=order,
            sentences=order.foretell(overview),
            problem=problem,
        )

    def _order(self, name: str) -> Order:
        if self.orders is None:
            raise web.HTTPError(
                403, "This Flower is read-only: FLOWER_READ_ONLY=false gives it buttons"
            )
        if name not in self.orders.all:
            raise web.HTTPError(404, "There is no such button")
        return self.orders.all[name]

    def check_xsrf_cookie(self) -> None:
        """Whatever the login: without one, any page that the operator's browser opens could send a
        form to this port. Flower leaves that case out."""
        site = self.request.headers.get("Sec-Fetch-Site", "")
        origin = self.request.headers.get("Origin", "")
        if site and site not in ("same-origin", "none"):
            raise web.HTTPError(403, "Cross-site request forbidden")
        if not site and origin and urlparse(origin).netloc != self.request.host:
            raise web.HTTPError(403, "Cross-origin request forbidden")
        web.RequestHandler.check_xsrf_cookie(self)


class EnrichmentJson(Page):
    """GET /enrichment.json: what `python -m enrich status --json` prints."""

    @web.authenticated
    async def get(self) -> None:
        overview = await self.room.latest.fresh()
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(as_json(overview.status)))


class Static(web.StaticFileHandler):
    """GET /enrichment/static/FILE: style and script, for everybody, as Flower's own are."""

    def initialize(self) -> None:  # type: ignore[override]
        super().initialize(str(STATIC))

    def set_extra_headers(self, path: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")


class Metrics(BaseHandler):  # type: ignore[misc]
    """GET /metrics, in place of Flower's.

    Flower's would ask our servers on the event loop, and gives its numbers, which now name the
    projects, to anyone who can reach the port, whatever authentication is set.
    """

    @web.authenticated
    async def get(self) -> None:
        self.application.purge_offline_worker_metrics()
        body = await on_thread(prometheus_client.generate_latest)
        self.set_header("Content-Type", prometheus_client.CONTENT_TYPE_LATEST)
        self.finish(body)


async def on_thread(do: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(THREADS, do, *arguments)


async def runs_of(room: Room, count: int, before: str, empty: bool) -> History:
    """A page of runs. Raises HTTPError: 404 where `before` is no run."""
    try:
        page: History = await on_thread(
            partial(room.history.runs, count, before=before, busy=not empty)
        )
    except UnknownRun as error:
        raise web.HTTPError(404, words.plain(error)) from None
    except EnrichError as error:
        return History([], problem=str(error))
    return page


async def find_run(room: Room, overview: Overview, id: str) -> RunRecord:
    """A run by its id or number. Raises HTTPError: 404 where nobody knows it, 503 where a server is
    away."""
    active = overview.status.active_run
    if active is not None and active.run_id == id:
        return active
    try:
        found: RunRecord = await on_thread(room.history.run, id[: words.NAME_LENGTH])
    except UnknownRun as error:
        # What the page shows has a page, also where it was just forgotten.
        known = next((run for run in overview.runs if run.run_id == id), None)
        if known is None:
            raise web.HTTPError(404, words.plain(error)) from None
        return known
    except EnrichError as error:
        raise web.HTTPError(503, words.plain(error)) from None
    return found


def _number_above(runs: list[RunRecord], before: str, overview: Overview) -> int:
    """The number of the run above the first row, which tells how many empty ones are between."""
    if before:
        return runs[0].number + 1 if runs else 0
    last = overview.status.last_runs
    return last[0].number + 1 if last else 0


def _told(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in list(value.items())[:SKIPPED_SHOWN])
    return value
