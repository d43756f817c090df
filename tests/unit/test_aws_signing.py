"""Amazon's signatures against a server that computes each of them anew, and what becomes of
credentials that are wrong, expired, renewed or missing."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from enrich.errors import AccessRefused, EnrichError, ServerUnavailable, SettingsError
from enrich.log_store.connection import Connection
from enrich.log_store.refusals import RightMissing
from enrich.settings import load_settings

REGION = "eu-west-1"

#: As Amazon says it.
EXPIRED = "The security token included in the request is expired"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)


class Domain:
    """An OpenSearch that lets in whoever signs right; and, at /role, what gives out credentials."""

    def __init__(self) -> None:
        #: Access key → secret and session token.
        self.known: dict[str, tuple[str, str]] = {}
        self.expired: set[str] = set()
        self.service = "es"
        self.asked: list[str] = []
        #: By access key.
        self.let_in: list[str] = []
        self.bodies: list[bytes] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.given = 0
        domain = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path == "/role":
                    status, answer = 200, domain.give()
                else:
                    domain.asked.append(f"{self.command} {self.path}")
                    message = domain.objection(self.command, self.path, self.headers, body)
                    if message:
                        status, answer = 403, {"message": message}
                    else:
                        domain.bodies.append(body)
                        status, answer = domain.refusal or (200, {"ok": True})
                sent = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = _handle

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def objection(self, method: str, path: str, headers: Any, body: bytes) -> str:
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/(\w+)/aws4_request, "
            r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})",
            headers.get("authorization", ""),
        )
        if found is None:
            return "Missing Authentication Token"
        key, _, region, service, signed, signature = found.groups()
        if (region, service) != (REGION, self.service):
            return f"Credential should be scoped to a valid region, not '{region}'."
        if key in self.expired or key not in self.known:
            return EXPIRED if key in self.expired else "The security token is invalid."
        secret, token = self.known[key]
        names = signed.split(";")
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
            return "some header is not signed"
        if headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
            return "the body is another than the one that was signed"
        if headers.get("x-amz-security-token", "") != token:
            return "The security token is invalid."
        request = AWSRequest(
            method=method,
            url=f"http://{headers['host']}{path}",
            data=body,
            headers={name: headers[name] for name in names},
        )
        request.context["timestamp"] = headers["x-amz-date"]
        signer = SigV4Auth(Credentials(key, secret, token or None), self.service, REGION)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        if signer.signature(text, request) != signature:
            return MISMATCH
        self.let_in.append(key)
        return ""

    def give(self) -> dict[str, str]:
        """Credentials that end so soon that those who hold them renew them each time."""
        self.given += 1
        key = f"AKROLE{self.given}"
        self.known = {key: (f"role-secret-{self.given}", f"token-{self.given}")}
        ends = datetime.now(UTC) + timedelta(minutes=5)
        return {
            "AccessKeyId": key,
            "SecretAccessKey": self.known[key][0],
            "Token": self.known[key][1],
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def domain() -> Iterator[Domain]:
    running = Domain()
    yield running
    running.close()


@pytest.fixture
def to(
    domain: Domain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Connection]]:
    """A connection that signs; credentials are those of the environment that a test makes."""
    for name in ("OPENSEARCH_HOST", "OPENSEARCH_PORT", "OPENSEARCH_USE_SSL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    made: list[Connection] = []

    def connect(**values: Any) -> Connection:
        settings = {"opensearch_url": domain.url, "aws_region": REGION, **values}
        made.append(
            Connection(load_settings(openai_api_key="sk-1", opensearch_auth="aws", **settings))
        )
        return made[-1]

    yield connect
    for each in made:
        each.close()


To = Callable[..., Connection]
BULK = ("POST", "/_bulk", '{"index":{}}\n{"message":"결제 실패"}\n'.encode())


def own(monkeypatch: pytest.MonkeyPatch, key: str, secret: str, token: str = "") -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)


@pytest.mark.parametrize("service", ["es", "aoss"])
@pytest.mark.parametrize("token", ["", "session-token"])
@pytest.mark.parametrize("path", ["", "/behind/a path"])
def test_every_request_is_signed_as_amazon_computes_it(
    domain: Domain, to: To, monkeypatch: pytest.MonkeyPatch, service: str, token: str, path: str
) -> None:
    own(monkeypatch, "AKRIGHT", "right-secret", token)
    domain.known["AKRIGHT"] = ("right-secret", token)
    domain.service = service
    url = domain.url + path.replace(" ", "%20")
    connection = to(opensearch_aws_service=service, opensearch_url=url)
    params = {"ignore_unavailable": "true", "expand_wildcards": "open,hidden", "filter": "a.*"}
    for request in (
        BULK,
        ("GET", "/"),
        ("POST", "/*_*,-.*/_search", {"query": {"match": {"message": "설정"}}}, params),
        ("PUT", "/a_%ED%95%9C_2026/_mapping", {}),
        ("GET", "/%3Ca-%7Bnow%2Fd%7D%3E/_doc/a%20b%2Fc"),
    ):
        assert json.loads(connection.request(*request)) == {"ok": True}
    assert len(domain.let_in) == 5 and domain.bodies[0] == BULK[2]


def test_wrong_credentials_are_one_sentence_each(
    domain: Domain, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(monkeypatch, "AKWRONG", "wrong-secret", "wrong-token")
    domain.known["AKWRONG"] = ("right-secret", "wrong-token")

    def refused(**values: Any) -> str:
        with pytest.raises(AccessRefused) as raised:
            to(**values).request(*BULK)
        told = str(raised.value)
        assert "wrong" not in told.replace("signature is wrong", "")
        assert "AKWRONG" not in told and told.count("\n") == 0
        return told

    assert "signature is wrong: check AWS_SECRET_ACCESS_KEY" in refused()
    domain.expired.add("AKWRONG")
    before = len(domain.asked)
    assert "expired or unknown: renew them" in refused()
    assert len(domain.asked) == before + 1, "there are no others to try"
    domain.expired.clear()
    domain.known.clear()
    assert "expired or unknown" in refused()
    assert "another region or service: check AWS_REGION" in refused(aws_region="us-east-1")
    assert not domain.bodies


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (403, {"Message": "User: arn:aws:iam::1:role/x is not authorized to perform: es:ESHttpGet"},
         AccessRefused, "allow es:ESHttp"),
        (403, {"message": "Signature expired: 20261128T000000Z is now earlier than 2026"},
         AccessRefused, "set the clock of this host"),
        (403, {"error": {"type": "security_exception", "reason": "no permissions for [] and User"}},
         RightMissing, "security_exception"),
        (404, {"message": "not authorized to perform"}, AccessRefused, "AWS, 404"),
    ],
)  # fmt: skip
def test_refusals_of_amazon_and_of_opensearch_are_told_apart(
    domain: Domain, to: To, monkeypatch: pytest.MonkeyPatch,
    status: int, answer: dict[str, Any], kind: type[EnrichError], words: str,
) -> None:  # fmt: skip
    own(monkeypatch, "AKRIGHT", "right-secret")
    domain.known["AKRIGHT"] = ("right-secret", "")
    domain.refusal = (status, answer)
    with pytest.raises(kind, match=words) as raised:
        to().request(*BULK)
    assert type(raised.value) is kind and "arn:" not in str(raised.value)


def test_credentials_that_a_file_gets_anew_are_taken_under_way(
    domain: Domain, to: To, tmp_path: Path
) -> None:
    def write(key: str) -> None:
        (tmp_path / "credentials").write_text(
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n"
            f"aws_session_token = token-of-{key}\n"
        )
        domain.known[key] = (f"secret-of-{key}", f"token-of-{key}")

    write("AKFIRST")
    connection = to()
    connection.request(*BULK)
    write("AKSECOND")
    domain.expired.add("AKFIRST")
    connection.request(*BULK)
    connection.request(*BULK)
    assert domain.let_in == ["AKFIRST", "AKSECOND", "AKSECOND"]
    assert len(domain.bodies) == 3, "what was refused is not done, and done once afterwards"
    assert len(domain.asked) == 4


def test_credentials_of_a_role_are_renewed_before_they_end(
    domain: Domain, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{domain.url}/role")
    connection = to()
    for _ in range(3):
        connection.request(*BULK)
    assert domain.given >= 3 and len(set(domain.let_in)) == 3
    assert len(domain.asked) == 3, "no request went out with credentials that had ended"


def test_credentials_that_cannot_be_had_are_one_sentence(
    domain: Domain, to: To, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AccessRefused, match="no AWS credentials were found: give the workers"):
        to().request(*BULK)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/role")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ServerUnavailable, match="AWS credentials cannot be had now"):
        to().request(*BULK)
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match="AWS_PROFILE or its file cannot be used"):
        to()
    assert not domain.asked


@pytest.mark.parametrize(
    ("values", "region"),
    [
        ({"opensearch_url": "https://search-x.ap-northeast-2.es.amazonaws.com"}, "ap-northeast-2"),
        ({"opensearch_url": "https://x.aos.us-gov-west-1.on.aws", "aws_region": "eu-west-1"},
         "us-gov-west-1"),
        ({"opensearch_url": "https://vpc-x.cn-north-1.es.amazonaws.com.cn"}, "cn-north-1"),
        ({"opensearch_url": "https://x.eu-west-3.aoss.amazonaws.com",
          "opensearch_aws_service": "aoss"}, "eu-west-3"),
        ({"opensearch_url": "https://search.example.org", "aws_region": "eu-west-1"}, "eu-west-1"),
        ({"opensearch_host": "search-x.sa-east-1.es.amazonaws.com", "opensearch_url": ""},
         "sa-east-1"),
    ],
)  # fmt: skip
def test_the_region_is_the_hosts_or_the_settings(
    to: To, values: dict[str, str], region: str
) -> None:
    connection = to(**{"aws_region": "", **values})
    assert connection._signing is not None
    assert connection._signing.region == region


def test_what_is_missing_is_named_before_anything_is_asked(
    to: To, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for region in ("", "eu west"):
        with pytest.raises(SettingsError, match="AWS_REGION: OPENSEARCH_AUTH=aws needs the region"):
            to(aws_region=region)
    with pytest.raises(SettingsError, match="OPENSEARCH_AWS_SERVICE must be aoss"):
        to(opensearch_url="https://x.eu-west-1.aoss.amazonaws.com")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match=r"needs boto3: .*\[aws\]"):
        to()
    assert not domain.asked


def test_nothing_of_amazons_is_loaded_for_others() -> None:
    program = (
        "import sys\nfrom enrich.settings import load_settings\n"
        "from enrich.log_store import LogStore\n"
        "LogStore(load_settings(openai_api_key='x')).close()\n"
        "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore')))"
    )
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
