"""OpenSearch with the security plugin: logins, least rights, and rights that are missing.

Whatever is not allowed is known before a text is bought, and said with what to change.
"""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from enrich import wiring
from enrich.cli.check import Check
from enrich.errors import AccessRefused, EnrichError, Halt
from enrich.log_store import LogStore
from enrich.log_store.refusals import RightMissing
from enrich.reindexing.steps import Reindex
from tests.conftest import PREFIX, ROOT
from tests.secured import PASSWORD, SecuredCluster, User, least_rights

INDEX = "shop_logs_2026_11"


def logs(count: int) -> list[dict[str, Any]]:
    return [
        {"level": "ERROR", "message": f"payment {n} declined", "timestamp": 1_795_000_000_000 + n}
        for n in range(count)
    ]


def inputs(secured: SecuredCluster) -> int:
    """Texts that the embeddings API was asked for."""
    return secured.embeddings.counts()["inputs"]


def test_least_rights_suffice_for_a_run(secured: SecuredCluster) -> None:
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(5))
    run = secured.pipeline(secured.user()).run()
    assert (run.state, run.vectors_written, run.skipped_indices) == ("finished", 5, {})
    assert secured.search.count(INDEX, {"exists": {"field": "log_vector"}}) == 5


def test_runs_are_kept_with_least_rights_and_without_them_no_run_fails(
    secured: SecuredCluster,
) -> None:
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(2))
    user = secured.user()
    role = least_rights()
    del role["index_permissions"][1]
    secured.api("PUT", f"roles/{user.name}", role)
    one = secured.pipeline(user, enrich_history=True)
    run = one.run()
    assert (run.state, run.vectors_written) == ("finished", 2)
    lag = one.ledger.history.lag()
    assert lag.runs == 1 and lag.problem.count("\n") == 0
    assert "OPENSEARCH_USER" in lag.problem and "deploy/opensearch-role.json" in lag.problem
    config = secured.settings(user, enrich_history=True, enrich_redis_prefix=PREFIX)
    store = wiring.build_store(config)
    shown = wiring.build_history(config, one.ledger, store).runs()
    assert shown.runs == [run] and "OPENSEARCH_USER" in shown.problem
    # Given the rights, the next run that ends catches up.
    secured.role(user.name)
    one.run()
    assert one.ledger.history.lag().problem == "" and store.history.count() == 2
    assert store.history.forget(datetime.now(UTC) + timedelta(days=1)) == 3, "two runs, one day"
    assert store.history.count() == 0
    store.close()


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ("indices:data/write/*", "indices:data/write/bulk"),
        ("indices:data/write/index*", "indices:data/write/index"),
        ("indices:data/write/update*", "indices:data/write/update"),
        ("indices:data/write/bulk?", "indices:data/write/bulk[s]"),
    ],
)
def test_nothing_is_bought_where_a_right_to_write_is_missing(
    secured: SecuredCluster, without: str, missing: str
) -> None:
    for index in (INDEX, "pay_logs_2026_11"):
        secured.search.create(index)
        secured.search.index(index, logs(5))
    user = secured.user(without=[without])
    run = secured.pipeline(user).run()
    assert run.skipped_indices.keys() == {INDEX, "pay_logs_2026_11"}
    for reason in run.skipped_indices.values():
        assert missing in reason and "deploy/opensearch-role.json" in reason
    assert (run.found, run.api_inputs, inputs(secured)) == (0, 0, 0)
    # Given the right, the next run goes on.
    secured.role(user.name)
    assert secured.pipeline(user).run().vectors_written == 10


def test_an_index_that_may_not_be_written_costs_the_others_nothing(
    secured: SecuredCluster,
) -> None:
    for index in (INDEX, "pay_logs_2026_11"):
        secured.search.create(index)
        secured.search.index(index, logs(5))
    user = secured.user(without=["indices:data/write/*"])
    secured.role("writer", patterns=["pay_*"])
    secured.api("PUT", "rolesmapping/writer", {"users": [user.name]})
    # The right to send a bulk at all is not one of an index.
    run = secured.pipeline(user).run()
    assert run.skipped_indices.keys() == {INDEX}
    assert (run.vectors_written, inputs(secured)) == (5, 5)


def test_a_right_that_is_lost_in_mid_run_costs_one_chunk_at_most(secured: SecuredCluster) -> None:
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(300))
    user = secured.user()
    pipeline = secured.pipeline(user)
    written: list[str] = []

    def take_away(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            written.append(name)
            if len(written) == 2:
                secured.role(user.name, without=["indices:data/write/*"])

    pipeline.before = take_away
    run = pipeline.run()
    assert run.vectors_written == 100
    assert run.found == run.vectors_written + run.deferred and run.failed == 0
    assert run.halt_reason or run.skipped_indices.keys() == {INDEX}
    assert "OPENSEARCH_USER" in (run.halt_reason or run.skipped_indices[INDEX])
    assert inputs(secured) <= 200, "no more is bought once a write was refused"
    secured.role(user.name)
    pipeline.before = lambda name, arguments: None
    assert pipeline.run().vectors_written == 200


# -- each right of the role


def rights() -> list[str]:
    role = least_rights()
    of_indices = [right for each in role["index_permissions"] for right in each["allowed_actions"]]
    return [*role["cluster_permissions"], *of_indices]


def test_the_table_of_rights_has_each_right_of_the_role() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    table = text.partition("### Rights in OpenSearch")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert rows == rights()


@pytest.mark.apart
def test_check_names_each_right_that_is_missing(
    secured: SecuredCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each right of the role is needed for something, and what lacks it is said with its name."""
    for name in ("_look_at_settings", "_look_at_redis", "_look_at_embeddings"):
        monkeypatch.setattr(Check, name, lambda self: None)
    monkeypatch.chdir(secured.stack.folder)
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(2))
    # One whose mapping has to be completed.
    mapped = {"level": {"type": "keyword"}, "message": {"type": "text"}}
    settings = {"index.knn": True}
    secured.search.create("bare_logs", settings=settings, mappings={"properties": mapped})
    secured.search.index("bare_logs", logs(2))
    user = secured.user()

    def checked() -> tuple[int, str]:
        console = Console(file=io.StringIO(), width=1000)
        check = Check(secured.settings(user, enrich_history=True), console)
        check.all()
        assert isinstance(console.file, io.StringIO)
        return check.status, console.file.getvalue()

    status, told = checked()
    assert status == 0 and "OPENSEARCH_USER" not in told, told
    unnamed = {}
    for right in rights():
        # A right's own asterisk is meant as it stands.
        secured.role(user.name, without=[right.replace("*", "[*]")])
        status, told = checked()
        if not re.search(rf"[✗!].*OPENSEARCH_USER.*{right.rstrip('*')}.*deploy/opensearch-r", told):
            unnamed[right] = told
    assert not unnamed, "\n".join(f"{right}:\n{told}" for right, told in unnamed.items())


def test_the_role_for_reindex_suffices_and_a_part_is_never_taken_for_the_whole(
    secured: SecuredCluster,
) -> None:
    def replace(remove_old: bool = False) -> str:
        store = LogStore(secured.settings(user))
        told: list[str] = []
        work = Reindex(
            store.connection,
            expression=secured.settings(user).index_expression,
            dimensions=secured.settings(user).embedding_dimensions,
            say=lambda mark, text: told.append(text),
            show=lambda progress: None,
        )
        try:
            work.run(work.plan(INDEX, remove_old=remove_old))
        finally:
            store.close()
        return " ".join(told)

    mapped = {"level": {"type": "keyword"}, "message": {"type": "text"}}
    secured.search.create(INDEX, mappings={"properties": mapped})
    secured.search.index(INDEX, logs(5))
    user = secured.user()
    with pytest.raises(RightMissing):
        replace()
    more = json.loads((ROOT / "deploy" / "opensearch-role-reindex.json").read_text())
    secured.api("PUT", "roles/reindexer", more)
    secured.api("PUT", "rolesmapping/reindexer", {"users": [user.name]})
    hiding = {"dls": '{"bool": {"must_not": {"match": {"message": "3"}}}}'}
    for permission in more["index_permissions"]:
        permission |= hiding
    secured.api("PUT", "roles/reindexer", more)
    secured.role(user.name, **hiding)
    with pytest.raises(EnrichError):
        replace()
    assert secured.search.count(INDEX, {"match_all": {}}) == 5
    secured.search("DELETE", f"/{INDEX}-enrich-knn", ok=False)
    for permission in more["index_permissions"]:
        permission["dls"] = ""
    secured.api("PUT", "roles/reindexer", more)
    secured.role(user.name)
    assert "5 logs compared" in replace(remove_old=True)
    assert secured.search.count(INDEX, {"match_all": {}}) == 5
    assert secured.pipeline(user).run().vectors_written == 5


# -- logins


@pytest.mark.parametrize(
    "password", ["비밀번호-Right-Secret-1!", "Pässwörd-Right-Secret-1!", "a:b-Right Secret €4711"]
)
def test_passwords_of_any_alphabet_log_in(secured: SecuredCluster, password: str) -> None:
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(1))
    user = secured.user(password=password)
    assert secured.pipeline(user).run().vectors_written == 1


def test_a_wrong_login_and_a_missing_right_are_told_apart(secured: SecuredCluster) -> None:
    def ask(user: User, path: str) -> None:
        store = LogStore(secured.settings(user))
        try:
            store.connection.request("GET", path)
        finally:
            store.close()

    known = secured.user()
    for wrong in (User(name=known.name, password="wrong"), User(name="nobody", password=PASSWORD)):
        with pytest.raises(AccessRefused, match=r"\(401\): check OPENSEARCH_USER and OPENSEARCH_"):
            ask(wrong, "/_cluster/health")
    with pytest.raises(RightMissing, match=r"cluster:.*opensearch-role\.json") as refused:
        ask(known, "/_tasks")
    assert refused.value.rights and "401" not in str(refused.value)
    with pytest.raises(RightMissing, match=r"opensearch-role-template\.json"):
        ask(known, "/_index_template")


def test_a_wrong_password_halts_the_run_and_is_said(secured: SecuredCluster) -> None:
    user = secured.user()
    run = secured.pipeline(User(name=user.name, password="hunter2-wrong")).run()
    assert run.state == "halted" and inputs(secured) == 0
    assert "OPENSEARCH_PASSWORD" in run.halt_reason and "hunter2" not in run.halt_reason


def test_the_certificate_is_checked(secured: SecuredCluster) -> None:
    user = secured.user()
    store = LogStore(secured.settings(user, opensearch_ca_certs=""))
    with pytest.raises(Halt, match="OPENSEARCH_CA_CERTS"):
        store.version()
    store.close()
