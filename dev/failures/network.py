"""Failures on the way to another server: refused, silent, reset, wrongly encrypted, or answered
with something other than what was asked for. The other side is always a stand-in on loopback.
"""

from __future__ import annotations

import logging
import smtplib
import socket
import ssl
import threading
import urllib.request
from datetime import UTC, datetime
from http.client import BadStatusLine, IncompleteRead
from urllib.error import HTTPError

import openai
import redis
import requests
import urllib3
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as SearchConnectionError
from opensearchpy.exceptions import ConnectionTimeout
from redis.backoff import NoBackoff
from redis.retry import Retry

from dev.failures.certificates import write_certificate
from dev.failures.kinds import CUSTOMER, ORDER, SKU, Site, failure
from dev.failures.stand_ins import LOOPBACK, tls_port

_WAIT = 0.15
_FAR_FUTURE = datetime(2049, 1, 1, tzinfo=UTC)
_PAST = datetime(2024, 3, 31, 23, 59, 59, tzinfo=UTC)


# Refused


@failure("socket-refused", "payment-api", "payments.gateway")
def open_terminal(log: logging.Logger, site: Site) -> None:
    try:
        socket.create_connection((LOOPBACK, site.closed_port), timeout=2)
    except ConnectionRefusedError:
        log.exception("Card terminal refused the connection")


@failure("urllib3-refused", "inventory", "inventory.stock")
def read_stock(log: logging.Logger, site: Site) -> None:
    try:
        with urllib3.PoolManager(retries=False) as pool:
            pool.request("GET", f"http://{LOOPBACK}:{site.closed_port}/v1/stock/{SKU}")
    except urllib3.exceptions.NewConnectionError:
        log.exception("Warehouse %s can't be reached, stock of %s unknown", "{warehouse}", SKU)


@failure("requests-refused", "payment-api", "payments.gateway")
def charge_card(log: logging.Logger, site: Site) -> None:
    try:
        requests.post(
            f"http://{LOOPBACK}:{site.closed_port}/v1/charges", json={"order": ORDER}, timeout=2
        )
    except requests.ConnectionError:
        log.exception("Payment gateway refused the connection for order %s", ORDER)


@failure("redis-refused", "session-store", "sessions.cache")
def load_session(log: logging.Logger, site: Site) -> None:
    try:
        _redis(site.closed_port).get("session:" + CUSTOMER)
    except redis.ConnectionError:
        log.exception("Session cache is down, customer %s is signed out", CUSTOMER)


@failure("opensearch-refused", "search-api", "search.client")
def find_products(log: logging.Logger, site: Site) -> None:
    try:
        _opensearch(site.closed_port).search(index="products", body={"query": {"match_all": {}}})
    except SearchConnectionError:
        log.exception("Product search is unavailable: OpenSearch refused the connection")


@failure("broker-refused", "order-api", "orders.events")
def publish_order(log: logging.Logger, site: Site) -> None:
    try:
        url = f"amqp://{LOOPBACK}:{site.closed_port}//"
        with Connection(url, connect_timeout=2) as broker:  # type: ignore[no-untyped-call]
            broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except OperationalError:
        log.exception("Order event not published: message broker is unreachable")


@failure("dns-unknown-host", "shipping", "shipping.carriers")
def resolve_carrier(log: logging.Logger, site: Site) -> None:
    try:
        # Without asking a resolver, who might not answer, or answer for every name.
        socket.getaddrinfo("carrier.invalid", 443, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        log.exception("Carrier host name can't be resolved")


@failure("address-in-use", "api-gateway", "gateway.listener")
def listen(log: logging.Logger, site: Site) -> None:
    with socket.socket() as listener:
        try:
            listener.bind((LOOPBACK, site.silent_port))
        except OSError:
            log.exception("Gateway can't start: address already in use")


# Silent


@failure("socket-timeout", "payment-api", "payments.terminal")
def read_terminal(log: logging.Logger, site: Site) -> None:
    with socket.create_connection((LOOPBACK, site.silent_port), timeout=_WAIT) as connection:
        try:
            connection.recv(64)
        except TimeoutError:
            log.exception("Card terminal did not answer within %s ms", "{ms}")


@failure("requests-read-timeout", "shipping", "shipping.quotes")
def quote_delivery(log: logging.Logger, site: Site) -> None:
    try:
        requests.get(site.http + "/silent", timeout=_WAIT)
    except requests.ReadTimeout:
        log.exception("Delivery quote for order %s timed out", ORDER)


@failure("redis-timeout", "cart-api", "cart.cache")
def load_cart(log: logging.Logger, site: Site) -> None:
    try:
        _redis(site.silent_port).hgetall("cart:" + CUSTOMER)
    except redis.TimeoutError:
        log.exception("Cart of customer %s could not be read: Redis timed out", CUSTOMER)


@failure("opensearch-timeout", "search-api", "search.client")
def count_products(log: logging.Logger, site: Site) -> None:
    try:
        _opensearch(site.silent_port).count(index="products")
    except ConnectionTimeout:
        log.exception("Product count timed out in OpenSearch")


@failure("openai-timeout", "recommendation", "recommendation.embeddings")
def embed_slowly(log: logging.Logger, site: Site) -> None:
    try:
        with _openai(f"http://{LOOPBACK}:{site.silent_port}", _WAIT) as client:
            client.embeddings.create(
                model="text-embedding-3-small", input="waterproof hiking boots"
            )
    except openai.APITimeoutError:
        log.exception("Embedding request timed out")


# Cut off


@failure("connection-reset", "inventory", "inventory.feed")
def follow_feed(log: logging.Logger, site: Site) -> None:
    with socket.create_connection((LOOPBACK, site.resetting_port), timeout=2) as connection:
        connection.sendall(b"\n")
        try:
            connection.recv(64)
        except ConnectionResetError:
            log.exception("Stock feed was reset by the warehouse")


@failure("remote-disconnected", "payment-api", "payments.gateway")
def capture_payment(log: logging.Logger, site: Site) -> None:
    try:
        requests.get(site.http + "/disconnect", timeout=2)
    except requests.ConnectionError:
        log.exception("Payment gateway closed the connection without an answer")


@failure("incomplete-read", "catalog", "catalog.import")
def download_catalog(log: logging.Logger, site: Site) -> None:
    try:
        with urllib.request.urlopen(site.http + "/short", timeout=2) as answer:
            answer.read()
    except IncompleteRead:
        log.exception("Catalogue download ended early")


@failure("chunked-encoding", "catalog", "catalog.import")
def download_prices(log: logging.Logger, site: Site) -> None:
    try:
        requests.get(site.http + "/short", timeout=2)
    except requests.exceptions.ChunkedEncodingError:
        log.exception("Price list of supplier %s is incomplete", "{supplier}")


@failure("bad-status-line", "inventory", "inventory.stock")
def ask_wrong_server(log: logging.Logger, site: Site) -> None:
    try:
        urllib.request.urlopen(site.http + "/garbage", timeout=2).close()
    except BadStatusLine:
        log.exception("Warehouse answered with something that is not HTTP")


@failure("broken-pipe", "report-worker", "reports.export")
def stream_report(log: logging.Logger, site: Site) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        try:
            ours.sendall(b"order;amount\n" * 1000)
        except BrokenPipeError:
            log.exception("Report %s: the browser went away during the export", "{report}")


@failure("smtp-disconnected", "notification", "notification.mail")
def send_receipt(log: logging.Logger, site: Site) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    client = smtplib.SMTP(local_hostname="mail.shop.internal", timeout=2)
    client.sock = ours
    try:
        client.sendmail("shop@shop.internal", CUSTOMER + "@example.org", "Your receipt")
    except smtplib.SMTPServerDisconnected:
        log.exception("Receipt for order %s not mailed: mail server disconnected", ORDER)
    finally:
        ours.close()


# TLS


@failure("tls-self-signed", "payment-api", "payments.tls")
def trust_unknown(log: logging.Logger, site: Site) -> None:
    certificate = write_certificate(site.folder, "ledger.internal", expires=_FAR_FUTURE)
    with tls_port(certificate) as port:
        try:
            with _connect(port) as raw:
                ssl.create_default_context().wrap_socket(raw, server_hostname="ledger.internal")
        except ssl.SSLCertVerificationError:
            log.exception("Ledger's certificate is not trusted")


@failure("tls-expired", "auth", "auth.sso")
def trust_expired(log: logging.Logger, site: Site) -> None:
    certificate = write_certificate(site.folder, "sso.internal", expires=_PAST)
    with tls_port(certificate) as port:
        try:
            with _connect(port) as raw:
                ssl.create_default_context(cafile=str(certificate)).wrap_socket(
                    raw, server_hostname="sso.internal"
                )
        except ssl.SSLCertVerificationError:
            log.exception("Single sign-on is down: its certificate has expired")


@failure("tls-wrong-host", "shipping", "shipping.carriers")
def trust_wrong_host(log: logging.Logger, site: Site) -> None:
    certificate = write_certificate(site.folder, "old.carrier.internal", expires=_FAR_FUTURE)
    with tls_port(certificate) as port:
        try:
            with _connect(port) as raw:
                ssl.create_default_context(cafile=str(certificate)).wrap_socket(
                    raw, server_hostname="carrier.internal"
                )
        except ssl.SSLCertVerificationError:
            log.exception("Carrier's certificate is for another host")


@failure("tls-old-version", "payment-api", "payments.tls")
def speak_newer_tls(log: logging.Logger, site: Site) -> None:
    certificate = write_certificate(site.folder, "bank.internal", expires=_FAR_FUTURE)
    with tls_port(certificate, highest=ssl.TLSVersion.TLSv1_2) as port:
        context = ssl.create_default_context(cafile=str(certificate))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            with _connect(port) as raw:
                context.wrap_socket(raw, server_hostname="bank.internal")
        except ssl.SSLError:
            log.exception("Bank offers no TLS version that we allow")


@failure("tls-to-plain-http", "search-api", "search.client")
def speak_tls_to_http(log: logging.Logger, site: Site) -> None:
    ours, theirs = socket.socketpair()

    def answer_in_plain_http() -> None:
        with theirs:
            theirs.recv(4096)
            theirs.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    server = threading.Thread(target=answer_in_plain_http)
    server.start()
    with ours:
        try:
            ssl.create_default_context().wrap_socket(ours, server_hostname="search.internal")
        except ssl.SSLError:
            log.exception("TLS handshake with the search cluster failed: it speaks plain HTTP")
    server.join()


# Refused by status


@failure("http-500", "payment-api", "payments.gateway")
def open_charge(log: logging.Logger, site: Site) -> None:
    try:
        requests.post(site.http + "/v1/charges", json={}, timeout=2).raise_for_status()
    except requests.HTTPError:
        log.exception("Payment gateway failed for order %s", ORDER)


@failure("http-503", "inventory", "inventory.stock")
def reserve_stock(log: logging.Logger, site: Site) -> None:
    try:
        urllib.request.urlopen(site.http + "/v1/stock", timeout=2)
    except HTTPError as error:
        error.close()
        log.exception("Stock for order %s not reserved: warehouse overloaded", ORDER)


@failure("http-404", "shipping", "shipping.addresses")
def look_up_address(log: logging.Logger, site: Site) -> None:
    try:
        requests.get(site.http + "/v1/addresses", timeout=2).raise_for_status()
    except requests.HTTPError:
        log.exception("Address service no longer knows the endpoint for addresses")


@failure("http-409", "payment-api", "payments.refunds")
def refund(log: logging.Logger, site: Site) -> None:
    try:
        requests.post(site.http + "/v1/refunds", json={}, timeout=2).raise_for_status()
    except requests.HTTPError as error:
        try:
            raise RuntimeError(f"refund for order {ORDER} rejected") from error
        except RuntimeError:
            log.exception("Refund was rejected")


@failure("http-redirect-loop", "auth", "auth.sso")
def sign_in(log: logging.Logger, site: Site) -> None:
    try:
        session = requests.Session()
        session.max_redirects = 3
        with session:
            session.get(site.http + "/loop", timeout=2)
    except requests.TooManyRedirects:
        log.exception("Single sign-on redirects in a circle")


@failure("http-not-json", "billing", "billing.rates")
def load_rates(log: logging.Logger, site: Site) -> None:
    try:
        requests.get(site.http + "/html", timeout=2).json()
    except requests.JSONDecodeError:
        log.exception("Exchange rates are not JSON: a login page came back")


@failure("openai-401", "recommendation", "recommendation.embeddings")
def embed_with_wrong_key(log: logging.Logger, site: Site) -> None:
    _embed(log, site, "/unauthorized", "Embeddings are refused: wrong API key")


@failure("openai-429", "recommendation", "recommendation.embeddings")
def embed_too_often(log: logging.Logger, site: Site) -> None:
    _embed(log, site, "/limited", "Embeddings are throttled")


@failure("openai-quota", "recommendation", "recommendation.embeddings")
def embed_without_credit(log: logging.Logger, site: Site) -> None:
    _embed(log, site, "/quota", "Embeddings have stopped: quota used up")


@failure("openai-too-long", "recommendation", "recommendation.embeddings")
def embed_whole_manual(log: logging.Logger, site: Site) -> None:
    _embed(log, site, "/long", "Description of %s is too long to embed", SKU)


def _embed(log: logging.Logger, site: Site, path: str, line: str, *args: object) -> None:
    try:
        with _openai(site.http + path) as client:
            client.embeddings.create(model="text-embedding-3-small", input="red running shoes")
    except openai.APIStatusError:
        log.exception(line, *args)


def _openai(root: str, timeout: float = 2) -> openai.OpenAI:
    return openai.OpenAI(api_key="not-a-key", base_url=root + "/v1", max_retries=0, timeout=timeout)


def _connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=2)


def _redis(port: int) -> redis.Redis:
    return redis.Redis(host=LOOPBACK, port=port, socket_timeout=_WAIT, retry=Retry(NoBackoff(), 0))


def _opensearch(port: int) -> OpenSearch:
    return OpenSearch([f"http://{LOOPBACK}:{port}"], timeout=_WAIT, max_retries=0)
