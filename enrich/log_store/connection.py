"""The line to OpenSearch: one client, raw answers, and its errors in this project's words.

The only importer of opensearchpy. Answers are returned as text and decoded by the callers into
exactly what they need, because `_source` must be handed on byte for byte. Error texts of
OpenSearch quote document values, so only their type and status ever leave this module.
"""

from __future__ import annotations

import json
import logging
import math
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from opensearchpy import OpenSearch, Urllib3HttpConnection
from opensearchpy.exceptions import (
    ConnectionError as OpenSearchConnectionError,
)
from opensearchpy.exceptions import (
    ConnectionTimeout,
    SerializationError,
    SSLError,
    TransportError,
)
from opensearchpy.serializer import Serializer

from enrich.errors import (
    AccessRefused,
    EnrichError,
    Halt,
    ServerUnavailable,
    SettingsError,
    TransientError,
)
from enrich.log_store.bounded_answers import AnswerOutOfBounds, AnswerTooSlow, BoundedPool
from enrich.settings import Settings

T = TypeVar("T")

# Its warnings carry a stack trace for every refused connection, and its debug lines whole bodies;
# what there is to say is raised by `Connection.request`.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

#: Indices are named by patterns; some may vanish, close or be hidden between two requests.
LENIENT = {"ignore_unavailable": "true", "allow_no_indices": "true", "expand_wildcards": "open"}


class RequestRefused(EnrichError):
    """OpenSearch answered 4xx to a request that is not about access.

    Attributes:
        error_type: its `error.type`, such as `index_not_found_exception`.
        status: the HTTP status.
    """

    def __init__(self, message: str, error_type: str, status: int) -> None:
        super().__init__(message, error_type, status)
        self.error_type = error_type
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class TooDeep(TransientError):
    """An answer cannot be read, because a document in it is nested too deep."""


class NoShardAnswers(TransientError):
    """No shard of what was searched has a copy that answers."""


class NoAnswerInTime(ServerUnavailable):
    """A request was taken and not answered within OPENSEARCH_TIMEOUT_SECONDS."""


class RightMissing(AccessRefused):
    """OpenSearch knows OPENSEARCH_USER and does not allow what was asked (403).

    Attributes:
        rights: those that are missing, such as `indices:data/write/index`, as far as it says so.
    """

    def __init__(self, message: str, rights: tuple[str, ...] = ()) -> None:
        super().__init__(message, rights)
        self.rights = rights

    def __str__(self) -> str:
        return str(self.args[0])


class _Verbatim(Serializer):
    """Bodies out as bytes, answers in as text."""

    mimetype = "application/json"

    def loads(self, s: str) -> Any:
        return s

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


class _BoundedConnection(Urllib3HttpConnection):
    """The client's line, whose answers have bounds."""

    def _create_urllib3_pool(self) -> None:
        super()._create_urllib3_pool()
        self.pool = BoundedPool(self.pool, self.timeout)


class Connection:
    """Requests to one OpenSearch. Built once per process, after the fork."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError: OPENSEARCH_CA_CERTS cannot be used."""
        self.url = settings.opensearch_url
        #: How long OpenSearch may wait for a shard before it writes: it has to give up before we
        #: do, or a write that was given up here would be done there later, and not be counted.
        self.write_timeout = f"{settings.opensearch_timeout_seconds * 500:.0f}ms"
        password = settings.opensearch_password.get_secret_value()
        options: dict[str, Any] = {}
        if settings.opensearch_use_ssl:
            options = {
                "use_ssl": True,
                "verify_certs": settings.opensearch_verify_certs,
                "ssl_assert_hostname": None if settings.opensearch_verify_certs else False,
                "ssl_show_warn": False,
            }
            if settings.opensearch_ca_certs:
                _try_authorities(settings.opensearch_ca_certs)
                options["ca_certs"] = settings.opensearch_ca_certs
        self._client = OpenSearch(
            hosts=[{"host": settings.opensearch_host, "port": settings.opensearch_port}],
            headers=_login(settings.opensearch_user, password),
            timeout=settings.opensearch_timeout_seconds,
            # One owner for each failure: the task retries, not the client.
            max_retries=0,
            retry_on_timeout=False,
            serializer=_Verbatim(),
            connection_class=_BoundedConnection,
            **options,
        )

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Send one request; the answer's body, verbatim.

        Raises:
            ServerUnavailable (NoAnswerInTime), TransientError, AccessRefused (RightMissing), Halt,
            RequestRefused
        """
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, bytes) else None
        # In the path, because the client takes a parameter called `timeout` for its own.
        where = f"{path}?{urlencode(params)}" if params else path
        try:
            answer = self._client.transport.perform_request(
                method, where, body=body, headers=headers
            )
        except ConnectionTimeout:
            raise NoAnswerInTime(f"OpenSearch at {self.url} did not answer in time") from None
        except SSLError:
            raise Halt(
                f"OpenSearch at {self.url}: the TLS connection was refused; check its certificate, "
                "OPENSEARCH_CA_CERTS and OPENSEARCH_USE_SSL"
            ) from None
        except OpenSearchConnectionError as error:
            if isinstance(error.info, AnswerTooSlow):
                raise NoAnswerInTime(f"OpenSearch at {self.url} {error.info}") from None
            if isinstance(error.info, AnswerOutOfBounds):
                raise TransientError(f"OpenSearch at {self.url} {error.info}") from None
            raise ServerUnavailable(
                f"OpenSearch at {self.url} cannot be reached: "
                "check OPENSEARCH_HOST, OPENSEARCH_PORT, OPENSEARCH_USE_SSL and that it runs"
            ) from None
        except SerializationError:
            raise TransientError(
                f"OpenSearch at {self.url} answered with something that is not JSON: "
                "is there a proxy before it?"
            ) from None
        except TransportError as error:
            raise _translated(error, self.url) from None
        return answer if isinstance(answer, str) else ""

    def ask(
        self,
        type_: type[T],
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> T:
        """Send one request and decode its answer."""
        return decode(self.request(method, path, body, params), type_)


def _try_authorities(path: str) -> None:
    # The client would load it at each connection, and say that OpenSearch cannot be reached.
    try:
        ssl.create_default_context().load_verify_locations(cafile=path)
    except ssl.SSLError:
        reason = "holds no certificate in PEM form"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    else:
        return
    raise SettingsError(f"OPENSEARCH_CA_CERTS: {path} {reason}")


def _login(user: str, password: str) -> dict[str, str]:
    """The header of a login in UTF-8, which OpenSearch reads; the client library sends Latin-1."""
    if not user:
        return {}
    return {"authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def decode(body: str, type_: type[T]) -> T:
    """Decode an answer; half surrogate pairs, which msgspec refuses, pass.

    Raises:
        TooDeep: something in the answer is nested deeper than can be read.
        TransientError: the answer is cut short or of another shape.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return msgspec.convert(loads_leniently(body), type_)
    except RecursionError:
        raise TooDeep("OpenSearch's answer is nested deeper than can be read") from None
    except (ValueError, msgspec.ValidationError):
        raise TransientError("OpenSearch's answer was cut short or has another shape") from None


def loads_leniently(raw: str | bytes) -> Any:
    """Decode JSON that only the standard library takes: half surrogate pairs, and whole numbers of
    more digits than Python converts, which come as infinity.

    Raises:
        ValueError, RecursionError
    """
    return json.loads(raw, parse_int=_whole)


def _whole(digits: str) -> int | float:
    # Python's own limit is 4,300 digits (sys.set_int_max_str_digits).
    return int(digits) if len(digits) < 4000 else math.inf


def ndjson(rows: list[Any]) -> bytes:
    return b"\n".join(map(msgspec.json.encode, rows)) + b"\n"


def error_type(info: Any) -> str:
    """The `type` of the innermost telling error of an answer, "" if it has none."""
    if not isinstance(info, dict):
        return ""
    error = info.get("error", info)
    if not isinstance(error, dict):
        return ""
    roots = error.get("root_cause") or []
    first = roots[0].get("type") if roots and isinstance(roots[0], dict) else None
    return str(first or error.get("type") or "")


def rights_in(info: Any) -> tuple[str, ...]:
    """The missing rights that an error of the security plugin names; its reason also quotes the
    user, which is why nothing else of it is handed on."""
    named = _NO_PERMISSIONS.match(_reason(info))
    return tuple(dict.fromkeys(_RIGHT.findall(named[1]))) if named else ()


#: "no permissions for [indices:data/write/bulk[s], indices:data/write/index] and User [name=…".
_NO_PERMISSIONS = re.compile(r"no permissions for \[(.*?)\] and User ")
_RIGHT = re.compile(r"(?:cluster|indices):[a-z_]+/[a-z_/]+(?:\[[a-z_/]+\])?\*?")


def role_advice(rights: Sequence[str]) -> str:
    """Which role brings missing rights."""
    templates = any("template" in right for right in rights)
    name = "opensearch-role-template" if templates else "opensearch-role"
    return f"give OPENSEARCH_USER the role in deploy/{name}.json"


def _translated(error: TransportError, url: str) -> EnrichError:
    status = cast(int, error.status_code)
    kind = error_type(error.info)
    if status == 401:
        return AccessRefused(
            f"OpenSearch at {url} refused the user or password (401): "
            "check OPENSEARCH_USER and OPENSEARCH_PASSWORD"
        )
    if status == 403 and not kind:
        return RightMissing(
            f"OpenSearch at {url} does not allow this to OPENSEARCH_USER (403), and it is not its "
            "security plugin that says so: check what stands before it, such as a proxy"
        )
    if status == 403 and kind != "cluster_block_exception":
        rights = rights_in(error.info)
        missing = f": {', '.join(rights)}" if rights else ""
        return RightMissing(
            f"OpenSearch at {url} does not allow this to OPENSEARCH_USER (403, {kind}{missing}): "
            f"{role_advice(rights)}",
            rights,
        )
    if status == 500 and kind == "security_exception":
        # A write that the security plugin takes from nobody of whom it hides a part.
        return RequestRefused(f"OpenSearch refused a request ({status}, {kind})", kind, status)
    if status == 503 and kind == "search_phase_execution_exception":
        return NoShardAnswers(f"OpenSearch is overloaded or in trouble ({status}, {kind})")
    if status == 429 or status >= 500:
        return TransientError(f"OpenSearch is overloaded or in trouble ({status}, {kind})")
    return RequestRefused(f"OpenSearch refused a request ({status}, {kind})", kind, status)


def _reason(info: Any) -> str:
    error = info.get("error", info) if isinstance(info, dict) else None
    return str(error.get("reason", "")) if isinstance(error, dict) else ""
