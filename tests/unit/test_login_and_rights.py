"""OpenSearch's refusals of a login and of a right, in this project's words; the login's header."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from opensearchpy.exceptions import TransportError

from enrich.errors import AccessRefused
from enrich.log_store.connection import _login, _translated
from enrich.log_store.refusals import RightMissing, rights_in, role_advice

#: As the security plugin 2.19.1 says it.
NO_RIGHTS = (
    "no permissions for [indices:data/write/bulk[s], indices:data/write/update, "
    "indices:data/write/index] and User [name=clerk, backend_roles=[], requestedTenant=null]"
)


def refused(status: int, answer: Any) -> Any:
    return _translated(TransportError(status, "error", answer), "https://os:9200")


def test_rights_are_read_and_nothing_else_of_the_reason() -> None:
    assert rights_in({"error": {"reason": NO_RIGHTS}}) == (
        "indices:data/write/bulk[s]", "indices:data/write/update", "indices:data/write/index",
    )  # fmt: skip
    forged = "no permissions for [] and User [name=cluster:monitor/main, backend_roles=[]]"
    for reason in (forged, "indices:data/write/x", "", None, ["x"]):
        assert rights_in({"error": {"reason": reason}}) == ()
    assert rights_in("Forbidden") == rights_in(None) == rights_in({"error": "x"}) == ()


def test_the_role_that_brings_a_right_is_named() -> None:
    assert "deploy/opensearch-role.json" in role_advice(["indices:data/write/index"])
    assert "deploy/opensearch-role.json" in role_advice([])
    template = "indices:admin/index_template/put"
    assert "deploy/opensearch-role-template.json" in role_advice([template])


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (401, "Unauthorized", AccessRefused, "(401): check OPENSEARCH_USER and OPENSEARCH_PASS"),
        (403, {"error": {"type": "security_exception", "reason": NO_RIGHTS}}, RightMissing,
         "indices:data/write/update, indices:data/write/index): give OPENSEARCH_USER the role"),
        (403, {"error": {"type": "security_exception"}}, RightMissing, "(403, security_exception)"),
        (403, "<html>Forbidden</html>", RightMissing, "what stands before it, such as a proxy"),
    ],
)  # fmt: skip
def test_a_login_a_right_and_a_proxy_are_told_apart(
    status: int, answer: Any, kind: type, words: str
) -> None:
    error = refused(status, answer)
    assert type(error) is kind
    assert words in str(error) and "clerk" not in str(error)


def test_a_login_is_sent_in_utf_8() -> None:
    scheme, encoded = _login("사용자", "비밀번호1!")["authorization"].split(" ")
    assert scheme == "Basic"
    assert b64decode(encoded).decode() == "사용자:비밀번호1!"
    assert _login("", "unused") == {}
