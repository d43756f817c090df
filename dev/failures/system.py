"""Failures of the machine and of what runs on it: files, memory, the stack, processes, time limits,
locks, and the SQLite database.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests

from dev.failures.kinds import CUSTOMER, ORDER, SKU, LeftOut, Site, failure
from dev.failures.stand_ins import LOOPBACK


class LockTimeout(Exception):
    """A lock was not free in time."""


class PaymentUnavailable(Exception):
    """No payment provider took the charge."""


# Files


@failure("file-not-found", "report-worker", "reports.templates")
def read_template(log: logging.Logger, site: Site) -> None:
    try:
        (site.folder / "templates" / "invoice.html").read_text()
    except FileNotFoundError:
        log.exception("Invoice template is missing")


@failure("is-a-directory", "report-worker", "reports.export")
def write_export(log: logging.Logger, site: Site) -> None:
    target = site.folder / "exports"
    target.mkdir(exist_ok=True)
    try:
        target.write_text("order;amount\n")
    except IsADirectoryError:
        log.exception("Export could not be written: its target is a directory")


@failure("permission-denied", "billing", "billing.jobs")
def run_script(log: logging.Logger, site: Site) -> None:
    # Without an x bit a file can't be run, not even by root, whom reading would be allowed.
    script = site.folder / "close-month.sh"
    script.write_text("#!/bin/sh\n")
    try:
        subprocess.run([str(script)], check=True)
    except PermissionError:
        log.exception("Month can't be closed: permission denied")


@failure("disk-full", "report-worker", "reports.export")
def write_report(log: logging.Logger, site: Site) -> None:
    if not Path("/dev/full").is_char_device():
        raise LeftOut("there is no /dev/full")
    try:
        with open("/dev/full", "w") as report:
            report.write("order;amount\n")
    except OSError:
        log.exception("Report %s could not be written", "{report}")


@failure("same-file-copy", "catalog", "catalog.images")
def copy_onto_itself(log: logging.Logger, site: Site) -> None:
    picture = site.folder / "front.png"
    picture.write_bytes(b"\x89PNG")
    try:
        shutil.copyfile(picture, picture)
    except shutil.SameFileError:
        log.exception("Image of %s was not copied", SKU)


# Memory and stack


@failure("memory-error", "recommendation", "recommendation.training")
def allocate(log: logging.Logger, site: Site) -> None:
    try:
        bytearray(1 << 62)
    except MemoryError:
        log.exception("Out of memory while training")


@failure("recursion-simple", "catalog", "catalog.categories")
def path_of(log: logging.Logger, site: Site) -> None:
    parents = {"shoes": "sports", "sports": "shoes"}

    def climb(category: str) -> str:
        return climb(parents[category])

    try:
        climb("shoes")
    except RecursionError:
        log.exception("Category tree has a circle")


@failure("recursion-long", "pricing", "pricing.rules")
def evaluate_rules(log: logging.Logger, site: Site) -> None:
    rules: dict[str, Any] = {"any": [{"all": ["premium", {"rule": "loyalty"}]}]}
    rules["any"][0]["all"][1]["rule"] = rules

    def evaluate_any(rule: dict[str, Any]) -> bool:
        return any(evaluate_all(member) for member in rule["any"])

    def evaluate_all(rule: dict[str, Any]) -> bool:
        return all(evaluate(member) for member in rule["all"])

    def evaluate(rule: Any) -> bool:
        return evaluate_any(rule["rule"]) if isinstance(rule, dict) else bool(rule)

    try:
        with _stack_limit(150):
            evaluate_any(rules)
    except RecursionError:
        log.exception("Price rule refers to itself: maximum recursion depth exceeded")


@contextmanager
def _stack_limit(frames: int) -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@failure("retry-chain-long", "payment-api", "payments.checkout")
def charge_somewhere(log: logging.Logger, site: Site) -> None:
    def charge(providers: list[str]) -> None:
        provider = providers[0]
        try:
            requests.post(f"http://{LOOPBACK}:{site.closed_port}/{provider}/charges", timeout=1)
        except requests.ConnectionError as error:
            if len(providers) > 1:
                charge(providers[1:])
            raise PaymentUnavailable(f"{provider} is down, so were the others") from error

    try:
        charge(["nordpay", "hanpay"])
    except PaymentUnavailable:
        log.exception("Order %s could not be charged by any provider", ORDER)


# Processes


@failure("subprocess-exit", "catalog", "catalog.images")
def convert_image(log: logging.Logger, site: Site) -> None:
    try:
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=True)
    except subprocess.CalledProcessError:
        log.exception("Image converter failed for product %s", SKU)


@failure("subprocess-timeout", "report-worker", "reports.render")
def render_pdf(log: logging.Logger, site: Site) -> None:
    try:
        subprocess.run(["sleep", "2"], timeout=0.1)
    except subprocess.TimeoutExpired:
        log.exception("Rendering of report %s took too long", "{report}")


@failure("process-pool-broken", "recommendation", "recommendation.training")
def train_in_parallel(log: logging.Logger, site: Site) -> None:
    # "spawn" would run the calling program's main module again. Forking beside threads is warned
    # about, rightly, but this child does nothing before it ends.
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                pool.submit(os._exit, 137).result(timeout=2)
        except BrokenProcessPool:
            log.exception("Training stopped: a worker process was killed")


# Time limits, locks, queues


@failure("futures-timeout", "search-api", "search.suggest")
def suggest(log: logging.Logger, site: Site) -> None:
    pending: Future[list[str]] = Future()
    try:
        pending.result(timeout=0.05)
    except FutureTimeoutError:
        log.exception("Suggestions were not ready in time")


@failure("asyncio-timeout", "api-gateway", "gateway.proxy")
def proxy(log: logging.Logger, site: Site) -> None:
    async def forward() -> None:
        async with asyncio.timeout(0.05):
            await asyncio.Event().wait()

    try:
        asyncio.run(forward())
    except TimeoutError:
        log.exception("Upstream did not answer, request cancelled")


@failure("asyncio-cancelled", "api-gateway", "gateway.shutdown")
def shut_down(log: logging.Logger, site: Site) -> None:
    async def serve() -> None:
        request = asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.sleep(0)
        request.cancel()
        try:
            await request
        except asyncio.CancelledError:
            log.exception("Open request was cancelled by the shutdown")

    asyncio.run(serve())


@failure("exception-group", "order-api", "orders.checkout")
def check_out(log: logging.Logger, site: Site) -> None:
    async def check_stock() -> None:
        raise LookupError(f"{SKU} is out of stock")

    async def check_customer() -> None:
        raise PermissionError(f"customer {CUSTOMER} is blocked")

    async def check_all() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(check_stock())
            group.create_task(check_customer())

    try:
        asyncio.run(check_all())
    except ExceptionGroup:
        log.exception("Order %s did not pass its checks", ORDER)


@failure("lock-timeout", "inventory", "inventory.reservations")
def reserve(log: logging.Logger, site: Site) -> None:
    shelf = threading.Lock()
    with shelf:
        try:
            if not shelf.acquire(timeout=0.05):
                raise LockTimeout(f"shelf of {SKU} is locked by another reservation")
        except LockTimeout:
            log.exception("Possible deadlock in reservations")


@failure("queue-full", "notification", "notification.queue")
def enqueue(log: logging.Logger, site: Site) -> None:
    outgoing: queue.Queue[str] = queue.Queue(maxsize=1)
    outgoing.put(ORDER)
    try:
        outgoing.put(ORDER, timeout=0.05)
    except queue.Full:
        log.exception("Notification queue is full")


# SQLite


@failure("sql-syntax", "report-worker", "reports.sales")
def sum_sales(log: logging.Logger, site: Site) -> None:
    _fail_sql(log, "SELCT sum(amount) FROM orders", "Sales report has an SQL error")


@failure("sql-missing-table", "user-api", "users.store")
def load_users(log: logging.Logger, site: Site) -> None:
    _fail_sql(log, "SELECT * FROM customers", "Customer table is missing, was the migration run?")


@failure("sql-missing-column", "order-api", "orders.store")
def load_discounts(log: logging.Logger, site: Site) -> None:
    _fail_sql(log, "SELECT discount FROM orders", "Orders have no discount column")


@failure("sql-unique", "order-api", "orders.store")
def insert_twice(log: logging.Logger, site: Site) -> None:
    sql = "INSERT INTO orders (id, amount) VALUES (1, 10)"
    _fail_sql(log, sql, "Order %s was stored twice", ORDER)


@failure("sql-not-null", "billing", "billing.store")
def insert_without_amount(log: logging.Logger, site: Site) -> None:
    sql = "INSERT INTO orders (id, amount) VALUES (2, NULL)"
    _fail_sql(log, sql, "Order %s has no amount", ORDER)


@failure("sql-foreign-key", "shipping", "shipping.store")
def insert_orphan(log: logging.Logger, site: Site) -> None:
    sql = "INSERT INTO shipments (order_id) VALUES (99)"
    _fail_sql(log, sql, "Shipment belongs to no order")


@failure("sql-read-only", "report-worker", "reports.store")
def write_read_only(log: logging.Logger, site: Site) -> None:
    with closing(_database()) as database:
        database.execute("PRAGMA query_only = on")
        try:
            database.execute("DELETE FROM orders")
        except sqlite3.OperationalError:
            log.exception("Report database is read-only")


@failure("sql-full", "order-api", "orders.store")
def fill_up(log: logging.Logger, site: Site) -> None:
    with closing(_database()) as database:
        database.execute("PRAGMA max_page_count = 6")
        try:
            database.execute("INSERT INTO orders VALUES (2, zeroblob(1000000))")
        except sqlite3.OperationalError:
            log.exception("Order database is full")


@failure("sql-locked", "inventory", "inventory.store")
def update_locked(log: logging.Logger, site: Site) -> None:
    path = site.folder / "inventory.sqlite"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as first,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0.05)) as second,
    ):
        first.execute("CREATE TABLE stock (sku TEXT, quantity INTEGER)")
        first.execute("BEGIN EXCLUSIVE")
        try:
            second.execute("UPDATE stock SET quantity = quantity - 1")
        except sqlite3.OperationalError:
            log.exception("Stock could not be updated: another process holds the lock")


@failure("sql-corrupt", "session-store", "sessions.store")
def open_corrupt(log: logging.Logger, site: Site) -> None:
    path = site.folder / "sessions.sqlite"
    path.write_bytes(b"not a database " * 100)
    with closing(sqlite3.connect(path)) as database:
        try:
            database.execute("SELECT count(*) FROM sessions")
        except sqlite3.DatabaseError:
            log.exception("Session file is not a database")


@failure("sql-bindings", "user-api", "users.store")
def bind_wrongly(log: logging.Logger, site: Site) -> None:
    with closing(_database()) as database:
        try:
            database.execute("SELECT * FROM orders WHERE id = ? AND amount > ?", (1,))
        except sqlite3.ProgrammingError:
            log.exception("Orders of customer %s could not be listed", CUSTOMER)


def _fail_sql(log: logging.Logger, sql: str, line: str, *args: object) -> None:
    with closing(_database()) as database:
        try:
            database.execute(sql)
        except sqlite3.Error:
            log.exception(line, *args)


def _database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(
        """
        PRAGMA foreign_keys = on;
        CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
        CREATE TABLE shipments (order_id INTEGER NOT NULL REFERENCES orders (id));
        INSERT INTO orders VALUES (1, 10);
        """
    )
    return database
