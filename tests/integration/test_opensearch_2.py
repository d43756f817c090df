"""One whole cycle on OpenSearch 2.19.1, by a real worker and the command line, as a user with the
least rights. `make test-opensearch-2` runs the core of the other integration tests there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dev.embedding_model import Model
from enrich.text.extract import fingerprint
from tests.conftest import ROOT, start_worker
from tests.integration.test_cycle import assert_right_vectors, logs
from tests.secured import SecuredCluster, User

pytestmark = pytest.mark.apart

INDEX, NEXT = "shop_logs_2026_11", "shop_logs_2026_12"


def enrich(
    secured: SecuredCluster, user: User, *arguments: str
) -> subprocess.CompletedProcess[str]:
    told = subprocess.run(
        [sys.executable, "-m", "enrich", *arguments],
        cwd=secured.stack.folder,
        env={
            **{"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "400"},
            **secured.environment(user),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in told.stderr, told.stderr
    return told


def test_a_whole_cycle_with_the_least_rights(secured: SecuredCluster, model: Model) -> None:
    user, search = secured.user(), secured.search
    search.create(INDEX)
    # The next month's lacks our fields in its mapping: they are added by the first run.
    fields = {"level": "keyword", "message": "text", "timestamp": "date", "n": "integer"}
    mapped = {name: {"type": type_} for name, type_ in fields.items()}
    search.create(NEXT, settings={"index.knn": True}, mappings={"properties": mapped})
    search.index(INDEX, [*logs(150, 30), {**logs(1, 1, "INFO")[0], "_id": "info"}])
    search.index(NEXT, logs(50, 30))
    search.index("shop_logs_2026_11", [{**logs(1, 1)[0], "message": " ", "_id": "blank"}])
    worker = start_worker(secured.stack, "least-rights", **secured.environment(user))
    try:
        checked = enrich(secured, user, "check")
        assert checked.returncode == 0, checked.stdout
        assert "opensearch 2.19.1 at https://" in checked.stdout
        assert "201 ERROR logs can be given a vector" in checked.stdout
        assert "an update would be allowed in 2 indices" in checked.stdout
        assert "missing fields may be added to mappings" in checked.stdout
        assert "rights of OPENSEARCH_USER" not in checked.stdout, "nothing is left unseen"

        first = enrich(secured, user, "run", "--wait", "--json")
        assert first.returncode == 1, first.stdout + first.stderr
        record = json.loads(first.stdout)
        assert record["state"] == "finished" and record["skipped_indices"] == {}
        assert [record[n] for n in ("found", "vectors_written", "failed", "deferred")] == [
            *(201, 200, 1, 0)
        ]
        assert record["api_inputs"] == 30, "each text is paid for once"

        blank = search.source(INDEX, "blank")
        assert (blank["ai_enrichment_status"], "log_vector" in blank) == ("failed", False)
        search("DELETE", f"/{INDEX}/_doc/blank?refresh=true")
        assert assert_right_vectors(search, INDEX, model) == 150
        assert assert_right_vectors(search, NEXT, model) == 50
        assert "log_vector" not in search.source(INDEX, "info")
        stored = search.source(NEXT, f"{NEXT}-7")
        assert stored["ai_text_sha256"] == fingerprint(stored["message"]) and stored["n"] == 7

        second = json.loads(enrich(secured, user, "run", "--wait", "--json").stdout)
        assert (second["found"], second["api_inputs"]) == (0, 0)

        found = enrich(secured, user, "search", "host number 7 refuses", "--k", "3", "--json")
        hits = json.loads(found.stdout)
        assert len(hits) == 3 and all("connection refused" in hit["message"] for hit in hits)
        assert sum(hit["logs"] for hit in hits) > 3 and not found.stderr

        status = enrich(secured, user, "status", "--json")
        report = json.loads(status.stdout)
        assert status.returncode == 0, status.stdout
        assert report["backlog"]["with_vector"] == 200
        assert report["backlog"]["by_index"].keys() == {INDEX, NEXT}
    finally:
        worker.stop()


def test_what_is_marked_failed_is_shown_and_put_back_with_the_least_rights(
    secured: SecuredCluster,
) -> None:
    user, search = secured.user(), secured.search
    search.create(INDEX)
    search.index(INDEX, [{**logs(1, 1)[0], "message": " "}])
    assert secured.pipeline(user).run().failed == 1
    (failure,) = json.loads(enrich(secured, user, "failures", "--json").stdout)
    assert (failure["index"], failure["id"]) == (INDEX, f"{INDEX}-0")
    put_back = enrich(secured, user, "retry-failed", "--yes")
    assert put_back.returncode == 0, put_back.stderr
    assert "ai_enrichment_status" not in search.source(INDEX, f"{INDEX}-0")
