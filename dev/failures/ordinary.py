"""INFO and WARN lines as libraries write them while they work: the logs between which the failures
have to be found.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import requests
import urllib3
from celery import Celery
from opensearchpy import OpenSearch, TransportError

from dev.failures.kinds import Ordinary, Site
from dev.failures.normal import normalise
from dev.failures.stand_ins import LOOPBACK


class Written(logging.Handler):
    """Keeps (level name, logger name, text with traceback) of every record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.name, self.format(record)))


def library_lines(site: Site) -> list[Ordinary]:
    """Let libraries do ordinary work against the stand-ins and return what they logged."""
    with listening("urllib3", "opensearch", "httpx2", "openai", "asyncio", "celery") as written:
        _use_http(site)
        _use_asyncio()
        _use_celery()
    services = {"urllib3": "payment-api", "opensearch": "search-api", "celery": "order-worker"}
    services |= {"httpx2": "recommendation", "openai": "recommendation", "asyncio": "api-gateway"}
    lines = []
    for level, name, text in written.lines:
        shown = {"WARNING": "WARN", "INFO": "INFO", "DEBUG": "INFO"}.get(level)
        if shown and (level != "DEBUG" or name.startswith("urllib3")):
            message = _without_durations(normalise(text, site))
            service = services[name.partition(".")[0]]
            lines.append(Ordinary(level=shown, service_name=service, logger=name, message=message))
    return lines


def _use_http(site: Site) -> None:
    with requests.Session() as session:
        for path in ("/v1/rates/today", "/v1/stock", "/v1/addresses", "/v1/charges"):
            session.get(site.http + path, timeout=1)
    with urllib3.PoolManager(maxsize=1) as pool:
        first = pool.request("GET", site.http + "/v1/rates/today", preload_content=False)
        second = pool.request("GET", site.http + "/v1/rates/today", preload_content=False)
        for answer in (first, second):
            answer.read()
            answer.release_conn()
        try:
            pool.request(
                "GET", f"http://{LOOPBACK}:{site.closed_port}/v1/stock", retries=urllib3.Retry(1)
            )
        except urllib3.exceptions.MaxRetryError:
            """The warning before the retry is what was wanted."""
    with OpenSearch([site.http], max_retries=0) as search:
        for path in ("/v1/rates/today", "/products/_search"):
            try:
                search.transport.perform_request("GET", path)
            except TransportError:
                """Logged as a warning by the client."""
    with openai.OpenAI(api_key="not-a-key", base_url=site.http + "/healthy/v1") as client:
        client.embeddings.create(
            model="text-embedding-3-small", input="rain coat", encoding_format="float"
        )


def _use_asyncio() -> None:
    async def be_slow() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.005
        # Nothing after this: on a busy machine the loop's own end may be slow, too.
        loop.call_soon(setattr, loop, "slow_callback_duration", math.inf)
        time.sleep(0.01)

    asyncio.run(be_slow(), debug=True)


def _use_celery() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = False

    # Not shared: no other app of this process is to know these.
    @app.task(name="shop.send_receipt", shared=False)  # type: ignore[untyped-decorator]
    def send_receipt(order: str) -> str:
        return f"receipt for order {order} sent"

    @app.task(  # type: ignore[untyped-decorator]
        name="shop.refresh_prices", bind=True, max_retries=1, shared=False
    )
    def refresh_prices(self: Any) -> None:
        raise self.retry(countdown=30, exc=ConnectionError("price feed is not ready"))

    send_receipt.apply(("{order}",))
    refresh_prices.apply()


def _without_durations(text: str) -> str:
    text = re.sub(r"request:\d+\.\d+s", "request:{s}s", text)
    text = re.sub(r"\b(took|in|for) \d+\.\d+(?:e-\d+)?(?= ?s)", r"\1 {s}", text)
    return re.sub(r"\b(created at [^ ]+:|:)\d+(?=>)", r"\1{n}", text)


@contextmanager
def listening(*names: str) -> Iterator[Written]:
    """Hear these loggers at their lowest level, and leave them afterwards as they were."""
    written = Written()
    loggers = [logging.getLogger(name) for name in names]
    before = [(log.level, log.propagate, log.disabled) for log in loggers]
    for log in loggers:
        log.addHandler(written)
        log.setLevel(logging.DEBUG)
        log.propagate, log.disabled = False, False
    try:
        yield written
    finally:
        for log, (level, propagate, disabled) in zip(loggers, before, strict=True):
            log.removeHandler(written)
            log.setLevel(level)
            log.propagate, log.disabled = propagate, disabled
