"""Which server is served: by what it says of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enrich.log_store.connection import decode
from enrich.log_store.refusals import RequestRefused, RightMissing
from enrich.log_store.version import Version, read_version

TAGLINE = "The OpenSearch Project: https://opensearch.org/"


class Server:
    """Stands for the connection."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def ask(self, type_: Any, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/")
        if isinstance(self.root, Exception):
            raise self.root
        return decode(json.dumps(self.root), type_)


def version(root: Any) -> Version:
    return read_version(Server(root))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "number", ["2.12.0", "2.19.1", "3.5.0", "3.6.0-SNAPSHOT", "12.0.0", "next"]
)
def test_served(number: str) -> None:
    found = version({"version": {"distribution": "opensearch", "number": number}})
    assert found.objection == "" and str(found) == f"opensearch {number}"


@pytest.mark.parametrize("number", ["1.3.20", "2.9.0", "2.11.1"])
def test_too_old(number: str) -> None:
    found = version({"version": {"distribution": "opensearch", "number": number}})
    assert f"opensearch {number} is too old" in found.objection
    assert "2.12 or newer" in found.objection and not found.untested


@pytest.mark.parametrize("number", ["7.10.2", "8.15.0"])
def test_elasticsearch_is_named(number: str) -> None:
    root = {"version": {"number": number}, "tagline": "You Know, for Search"}
    assert f"elasticsearch {number} answers, which is not OpenSearch" in version(root).objection


def test_what_works_and_is_not_tested() -> None:
    def untested(number: str) -> bool:
        return version({"version": {"distribution": "opensearch", "number": number}}).untested

    assert untested("2.18.0") and not untested("2.19.0") and not untested("3.9.0")


@pytest.mark.parametrize(
    "root",
    [
        # compatibility.override_main_response_version
        {"version": {"number": "7.10.2"}, "tagline": TAGLINE},
        RightMissing("no right"),
        RequestRefused("not found", "", 404),
    ],
)
def test_a_version_that_cannot_be_seen_is_no_objection(root: Any) -> None:
    found = version(root)
    assert found.objection == "" and not found.untested
    assert "cannot be seen" in str(found)
