"""The HTTP client under the embeddings API's: what an answer may cost in time, bytes and trust.

An answer is never decompressed (a small one could fill the memory), is read up to a limit, and has
one time-out for all of it, which a slow drip of bytes does not extend. A redirect is handed on
unfollowed: it would carry log text to a host that nobody set.
"""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from urllib.request import getproxies

import httpx2

from enrich.errors import SettingsError
from enrich.settings import authorities

#: The only form in which an answer is taken.
IDENTITY = {"Accept-Encoding": "identity"}


class AnswerRefused(Exception):
    """An answer that was not read; `str()` says why, to go behind "the embeddings API"."""


class BoundedClient(httpx2.Client):
    """Reads answers whole, within `seconds` and `most_bytes`.

    Raises (besides what httpx2 raises):
        AnswerRefused: it is compressed, or larger.
        httpx2.ReadTimeout: it did not end in time.
    """

    def __init__(self, *, seconds: float, most_bytes: int, proxy: str = "") -> None:
        """
        Args:
            proxy: its URL; "" for the environment's, "none" for none whatever that says.

        Raises:
            SettingsError: what is said of proxies and authorities is wrong.
        """
        with _environment_named("OPENAI_PROXY" if proxy else ""):
            super().__init__(
                timeout=seconds,
                follow_redirects=False,
                proxy=None if proxy in ("", "none") else proxy,
                trust_env=not proxy,
                verify=_trusted(authorities()),
            )
        self._seconds = seconds
        self._most = most_bytes
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __del__(self) -> None:
        if hasattr(self, "_sockets") and not self.is_closed:
            self.close()

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """One request, and its answer with all its bytes."""
        options |= {"stream": True, "follow_redirects": False}
        request.extensions["trace"] = self._note_connection
        late = threading.Event()
        timer = threading.Timer(self._seconds, self._hang_up, [late])
        timer.daemon = True
        timer.start()
        try:
            response = super().send(request, **options)
            try:
                body = self._read(response)
            finally:
                response.close()
        except httpx2.TransportError:
            if late.is_set():
                raise httpx2.ReadTimeout("not in time", request=request) from None
            raise
        finally:
            timer.cancel()
        return httpx2.Response(
            response.status_code, headers=response.headers, content=body, request=request
        )

    def _read(self, response: httpx2.Response) -> bytes:
        coding = response.headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            raise AnswerRefused("sent a compressed answer, though it was asked not to")
        body = bytearray()
        for part in response.iter_raw():
            body += part
            if len(body) > self._most:
                raise AnswerRefused(f"sent an answer of more than {self._most:,} bytes")
        return bytes(body)

    def _note_connection(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            line = info["return_value"].get_extra_info("socket")
            if isinstance(line, socket.socket):
                self._sockets.add(line)

    def _hang_up(self, late: threading.Event) -> None:
        # A time-out of the socket restarts with each byte; only an end of the connection is one.
        late.set()
        for line in list(self._sockets):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


@cache
def _trusted(authorities: tuple[str, str]) -> ssl.SSLContext:
    """Checks certificates against those of `authorities`, which are read once: it takes as long as
    a request."""
    return httpx2.create_ssl_context()


@contextmanager
def _environment_named(proxy: str) -> Iterator[None]:
    """Raise what building a client meets as a sentence; no value is quoted, a proxy's may have a
    password.

    Args:
        proxy: the setting that the proxy is from; "" for the environment's.
    """
    try:
        yield
    except ssl.SSLError:
        raise SettingsError(
            "SSL_CERT_FILE names a file without a certificate in PEM form: correct it in the "
            "environment, or take it away"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"SSL_CERT_FILE cannot be read ({error.strerror}): correct it in the environment, or "
            "take it away"
        ) from None
    except (ValueError, TypeError, ImportError, httpx2.InvalidURL):
        raise SettingsError(
            f"{proxy or _wrong_proxy()}: must be the URL of a proxy, http://host:port or "
            "socks5://host:port: correct it in the environment, or take it away"
        ) from None


def _wrong_proxy() -> str:
    for scheme, url in getproxies().items():
        if scheme in ("http", "https", "all"):
            try:
                httpx2.Proxy(url if "://" in url else f"http://{url}")
            except (ValueError, TypeError, httpx2.InvalidURL):
                return f"{scheme.upper()}_PROXY"
    return "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY"


def never_connected(error: BaseException | None) -> bool:
    """Whether behind an error is a connection that was not made."""
    while error is not None:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            return True
        error = error.__cause__ or error.__context__
    return False
