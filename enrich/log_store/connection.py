"""The line to OpenSearch: one client, raw answers, and its errors in this project's words.

The only importer of opensearchpy. Answers are returned as text and decoded by the callers into
exactly what they need, because `_source` must be handed on byte for byte. Error texts of
OpenSearch quote document values, so only their type and status ever leave this module.

Of several nodes the client's own pool gives each request to the next; one that fails is left alone
for a while (`nodes` says which are asked at all). A request goes to another node only if the first
cannot have done it, or if it only reads: what becomes of a write whose answer was lost is for the
caller to find out.
"""

from __future__ import annotations

import json
import logging
import math
import re
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from opensearchpy import ConnectionPool, OpenSearch, Urllib3HttpConnection
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
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from enrich import tracing
from enrich.errors import (
    EnrichError,
    Halt,
    ServerUnavailable,
    SettingsError,
    TransientError,
    cause_of,
)
from enrich.log_store.aws import Signing
from enrich.log_store.aws import refusal as aws_refusal
from enrich.log_store.bounded_answers import AnswerOutOfBounds, AnswerTooSlow, BoundedPool
from enrich.log_store.nodes import PROBE_SECONDS, Admission, Identity, identity_of
from enrich.log_store.refusals import (
    CLIENT_CERTIFICATE,
    PASSWORD,
    NoAnswerInTime,
    TooDeep,
    is_the_nodes_own,
    translated,
)
from enrich.settings import Settings

T = TypeVar("T")

# Its warnings carry a stack trace for every refused connection, and its debug lines whole bodies;
# what there is to say is raised by `Connection.request`.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

#: Indices are named by patterns; some may vanish, close or be hidden between two requests.
LENIENT = {"ignore_unavailable": "true", "allow_no_indices": "true", "expand_wildcards": "open"}


class _Verbatim(Serializer):
    """Bodies out as bytes, answers in as text."""

    mimetype = "application/json"

    def loads(self, s: str) -> Any:
        return s

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


class _BoundedConnection(Urllib3HttpConnection):
    """The client's line to one node, whose answers have bounds."""

    def __init__(
        self,
        *arguments: Any,
        certificate: tuple[str, str] | None = None,
        connect_timeout: float | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            certificate: the client's own, and its key; files.
            connect_timeout: seconds; None: as long as for an answer.
        """
        self._certificate = certificate
        self._connect_timeout = connect_timeout
        super().__init__(*arguments, **options)

    def _create_urllib3_pool(self) -> None:
        super()._create_urllib3_pool()
        if self._certificate:
            # Here and not by the client, which sends none where it does not verify the server.
            self.pool.cert_file, self.pool.key_file = self._certificate
        self.pool = BoundedPool(self.pool, self.timeout, self._connect_timeout)

    @property
    def url(self) -> str:
        return f"{self.host}{self.url_prefix}"

    def perform_request(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().perform_request(*arguments, **options)
        except TransportError as error:
            error.node = self  # type: ignore[attr-defined]
            raise


def _probed(node: _BoundedConnection) -> Identity:
    """Ask a node who it is. Raises TransportError, SerializationError: it is not to be asked."""
    try:
        _, _, body = node.perform_request("GET", "/", timeout=min(PROBE_SECONDS, node.timeout))
    except TransportError as error:
        # Alive; some roles may not ask, and some services answer nothing there.
        if error.status_code in (401, 403) or (
            error.status_code == 404 and not str(error.error).lstrip().startswith("<")
        ):
            return Identity()
        raise
    identity = identity_of(body)
    if identity is None:
        page = SerializationError("not JSON")
        page.node = node  # type: ignore[attr-defined]
        raise page
    return identity


class _NoNode(Exception):
    """None of several nodes answers; why not the one that was asked last."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Pool(ConnectionPool):
    """The client's own, but for who decides which node is left alone, and for a look before."""

    def __init__(self, connections: Any, **options: Any) -> None:
        super().__init__(connections, dead_timeout=30, timeout_cutoff=2)
        self.admission: Admission[_BoundedConnection] = Admission(_probed)
        self._nodes: tuple[Any, ...] = self.orig_connections
        self._looked = False

    def get_connection(self) -> Any:
        """
        Raises:
            OtherCluster, _NoNode
        """
        if not self._looked:
            # At all of them once, so that nodes of two clusters are seen before anything is asked.
            self._looked = True
            for node in self._nodes:
                self._try(node)
        for node in tuple(self.admission.strangers):
            self._try(node)
        failed = Exception()
        for _ in self._nodes:
            node = super().get_connection()
            found = self._try(node)
            if found is None:
                return node
            failed = found
        raise _NoNode(failed)

    def _try(self, node: _BoundedConnection) -> Exception | None:
        try:
            self.admission.require(node)
        except (TransportError, SerializationError) as error:
            self.leave_alone(node)
            return error
        return None

    def leave_alone(self, node: _BoundedConnection) -> None:
        """For half a minute, and longer each time."""
        self.admission.forget(node)
        super().mark_dead(node)

    def mark_dead(self, connection: Any, now: float | None = None) -> None:
        """Not by the client, to which an index in trouble is a node's fault."""


class Connection:
    """Requests to one OpenSearch. Built once per process, after the fork."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError: a file that a setting names, or AWS_REGION, cannot be used."""
        nodes = settings.opensearch_nodes
        self.url = ", ".join(map(str, nodes))
        self._where = (
            "OPENSEARCH_URL"
            if settings.opensearch_url.get_secret_value()
            else "OPENSEARCH_HOST, OPENSEARCH_PORT, OPENSEARCH_USE_SSL"
        )
        #: How long OpenSearch may wait for a shard before it writes: it has to give up before we
        #: do, or a write that was given up here would be done there later, and not be counted.
        self.write_timeout = f"{settings.opensearch_timeout_seconds * 500:.0f}ms"
        options: dict[str, Any] = {}
        if nodes[0].secured:
            options = {
                "use_ssl": True,
                "verify_certs": settings.opensearch_verify_certs,
                "ssl_assert_hostname": None if settings.opensearch_verify_certs else False,
                "ssl_show_warn": False,
            }
            if settings.opensearch_ca_certs:
                _try_authorities(settings.opensearch_ca_certs)
                options["ca_certs"] = settings.opensearch_ca_certs
            if certificate := settings.opensearch_client_cert:
                key = settings.opensearch_client_key or certificate
                _try_certificate(certificate, key)
                options["certificate"] = (certificate, key)
        self._signing = Signing(settings) if settings.opensearch_auth == "aws" else None
        if self._signing is not None:
            options["http_auth"] = _signer(self._signing)
        if len(nodes) > 1:
            # One that does not answer at all shall not use up a task's time.
            options["connect_timeout"] = PROBE_SECONDS
        self.is_serverless = self._signing is not None and self._signing.service == "aoss"
        self._spare = len(nodes) - 1
        self._login = _login_of(settings)
        self._client = OpenSearch(
            hosts=[
                {"host": node.bare_host, "port": node.port, "url_prefix": node.path}
                for node in nodes
            ],
            headers=_headers(settings),
            timeout=settings.opensearch_timeout_seconds,
            # One owner for each failure: the task retries, not the client.
            max_retries=0,
            retry_on_timeout=False,
            serializer=_Verbatim(),
            connection_class=_BoundedConnection,
            connection_pool_class=_Pool,
            **options,
        )

    def close(self) -> None:
        self._client.close()

    def nodes(self) -> list[tuple[str, str]]:
        """Each node's URL, and why it is not asked now; "" for one that answers.

        Raises:
            Halt: nodes are of two clusters; or no request can be made at all.
        """
        admission: Admission[_BoundedConnection] = Admission(_probed)
        found = []
        seeds: list[Any] = self._client.transport.seed_connections
        for node in seeds:
            try:
                admission.require(node)
            except (TransportError, SerializationError) as error:
                found.append((node.url, str(self._named(error))))
            else:
                found.append((node.url, ""))
        return found

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
        with tracing.span("opensearch", method=method, operation=_operation(path)):
            return self._request(method, path, body, params)

    def _request(self, method: str, path: str, body: Any, params: Mapping[str, Any] | None) -> str:
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, bytes) else None
        # In the path, because the client takes a parameter called `timeout` for its own.
        where = f"{path}?{urlencode(params)}" if params else path
        spare, renewed = self._spare, False
        while True:
            try:
                answer = self._client.transport.perform_request(
                    method, where, body=body, headers=headers
                )
            except _NoNode as none:
                raise self._named(none.error, self.url) from None
            except (TransportError, SerializationError) as error:
                if self._is_expired(error) and not renewed:
                    renewed = True
                    if self._signing is not None and self._signing.renew():
                        continue
                if self._left_alone(error) and spare and _may_be_repeated(error, method, path):
                    spare -= 1
                    continue
                raise self._named(error) from None
            return answer if isinstance(answer, str) else ""

    def _left_alone(self, error: Exception) -> bool:
        """Leave the node alone if the failure is its own; whether it is."""
        node = getattr(error, "node", None)
        if not self._spare or node is None or not _is_the_nodes_own(error):
            return False
        self._client.transport.connection_pool.leave_alone(node)
        return True

    def _is_expired(self, error: Exception) -> bool:
        return (
            isinstance(error, TransportError)
            and self._signing is not None
            and error.status_code == 403
            and self._signing.is_expired(_said(error))
        )

    def _named(self, error: Exception, url: str = "") -> EnrichError:
        """An error of the client in our words; its URL is the node's, unless one is given."""
        node = getattr(error, "node", None)
        url = url or (node.url if node is not None and self._spare else self.url)
        if isinstance(error, ConnectionTimeout):
            return NoAnswerInTime(f"OpenSearch at {url} did not answer in time")
        if isinstance(error, SSLError):
            if _wants_certificate(error):
                return Halt(f"OpenSearch at {url} {CLIENT_CERTIFICATE}")
            hint = "; where it asks for a client certificate, OPENSEARCH_CLIENT_CERT"
            return Halt(
                f"OpenSearch at {url}: the TLS connection was refused; check its certificate, "
                f"OPENSEARCH_CA_CERTS and OPENSEARCH_USE_SSL{hint if _ends_unsaid(error) else ''}"
            )
        if isinstance(error, OpenSearchConnectionError):
            if isinstance(error.info, EnrichError):
                return error.info
            if isinstance(error.info, AnswerTooSlow):
                return NoAnswerInTime(f"OpenSearch at {url} {error.info}")
            if isinstance(error.info, AnswerOutOfBounds):
                return TransientError(f"OpenSearch at {url} {error.info}")
            return ServerUnavailable(
                f"OpenSearch at {url} cannot be reached: check {self._where} and that it runs"
            )
        if isinstance(error, SerializationError):
            path = "; check the path in OPENSEARCH_URL" if self._where == "OPENSEARCH_URL" else ""
            return TransientError(
                f"OpenSearch at {url} answered with something that is not JSON: "
                f"is there a proxy before it?{path}"
            )
        assert isinstance(error, TransportError)
        if self._signing is not None and (
            named := aws_refusal(cast(int, error.status_code), *_said(error), url)
        ):
            return named
        return _translated(error, url, self._login)

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


def _try_certificate(certificate: str, key: str) -> None:
    def refuse_password() -> str:
        raise SettingsError(
            f"OPENSEARCH_CLIENT_KEY: {key} is encrypted: give it without a password, readable by "
            "the workers alone"
        )

    try:
        ssl.create_default_context().load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError:
        reason = "do not hold a certificate and its key in PEM form"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    else:
        return
    names = certificate if key == certificate else f"{certificate} and {key}"
    raise SettingsError(f"OPENSEARCH_CLIENT_CERT and OPENSEARCH_CLIENT_KEY: {names} {reason}")


def _signer(signing: Signing) -> Callable[..., Any]:
    # Loads `requests`, which nothing else here needs.
    from opensearchpy import Urllib3AWSV4SignerAuth

    return cast(
        Callable[..., Any], Urllib3AWSV4SignerAuth(signing, signing.region, signing.service)
    )


def _headers(settings: Settings) -> dict[str, str]:
    headers = settings.opensearch_header_fields | _login(*settings.opensearch_login)
    if token := settings.opensearch_token.get_secret_value():
        headers["authorization"] = f"Bearer {token}"
    return headers


def _login_of(settings: Settings) -> tuple[str, str]:
    """What the login is, and which settings it is in."""
    if settings.opensearch_token.get_secret_value():
        return "token", "OPENSEARCH_TOKEN"
    if settings.opensearch_login[0]:
        return PASSWORD if settings.opensearch_user else ("user or password", "OPENSEARCH_URL")
    if settings.opensearch_header_fields:
        return "request without a login", "OPENSEARCH_HEADERS"
    return PASSWORD


#: Last parts of paths by which POST only asks.
_READS = frozenset({"_search", "_msearch", "_mget", "_count", "_field_caps"})


def _may_be_repeated(error: Exception, method: str, path: str) -> bool:
    """Whether a request that failed at one node may go to another.

    What was taken and not answered in time is none: it may be slow at every node.
    """
    if isinstance(error, ConnectionTimeout) or isinstance(_cause(error), AnswerTooSlow):
        return False
    if isinstance(_cause(error), (NewConnectionError, ConnectTimeoutError)) or cause_of(
        error, ssl.SSLCertVerificationError
    ):
        return True
    return method in ("GET", "HEAD") or path.rpartition("/")[2] in _READS


def _is_the_nodes_own(error: Exception) -> bool:
    """Whether another node may do better."""
    if not isinstance(error, TransportError):
        return False
    if isinstance(error, (ConnectionTimeout, OpenSearchConnectionError)):
        cause = _cause(error)
        if isinstance(cause, AnswerOutOfBounds):
            return isinstance(cause, AnswerTooSlow)
        return not isinstance(cause, EnrichError)
    return is_the_nodes_own(cast(int, error.status_code), error.info)


def _cause(error: Exception) -> Any:
    return error.info if isinstance(error, TransportError) else None


def _wants_certificate(error: SSLError) -> bool:
    return bool(_ABOUT_OURS.search(str(error.error)))


def _ends_unsaid(error: SSLError) -> bool:
    # What a server does that saw no certificate: with TLS 1.3 it closes the connection while we
    # write, and its alert is lost; with older versions its alert names no reason.
    return bool(
        cause_of(cast(Exception, error.info), ssl.SSLEOFError)
    ) or "alert handshake failure" in str(error.error)


#: Alerts of a server that asks for a certificate of ours, or does not take it.
_ABOUT_OURS = re.compile(
    r"alert (certificate|bad certificate|unsupported certificate|unknown ca)", re.IGNORECASE
)


def _said(error: TransportError) -> tuple[Any, str]:
    """What an answer that is no 2xx holds, as JSON or as text."""
    return error.info, error.error if isinstance(error.error, str) else ""


def _translated(error: TransportError, url: str, login: tuple[str, str] = PASSWORD) -> EnrichError:
    info, text = _said(error)
    return translated(cast(int, error.status_code), info, url, text=text, login=login)


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


def _operation(path: str) -> str:
    """`/a_b_2026_11/_doc/1` → `_doc`: no id of a document goes into a trace."""
    return next((part for part in path.split("/") if part.startswith("_")), "index")
