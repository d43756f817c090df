"""OpenSearch with the security plugin: TLS, logins, least rights, and rights that are missing."""

from __future__ import annotations

from tests.secured import SecuredCluster

INDEX = "shop_logs_2026_11"


def logs(count: int) -> list[dict[str, object]]:
    return [
        {"level": "ERROR", "message": f"payment {n} declined", "timestamp": 1_795_000_000_000 + n}
        for n in range(count)
    ]


def test_least_rights_suffice_for_a_run(secured: SecuredCluster) -> None:
    secured.search.create(INDEX)
    secured.search.index(INDEX, logs(5))
    run = secured.pipeline(secured.user()).run()
    assert run.vectors_written == 5
    assert secured.search.count(INDEX, {"exists": {"field": "log_vector"}}) == 5
