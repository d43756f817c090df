"""What a store of records promises: OpenSearch and the form in memory are held to the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from enrich.history.interfaces import RecordStore
from enrich.models import RunRecord

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def record(n: int, **fields: object) -> RunRecord:
    """Run n of as many days ago as there are from it to 9."""
    return RunRecord.model_validate(
        {
            "run_id": f"0000000000{n}a",
            "number": n,
            "state": "finished",
            "started_at": NOON - timedelta(days=9 - n),
            "found": n % 2,
            "api_inputs": 10,
            "cached": 5,
            "estimated_cost_usd": 0.5,
            "skipped_indices": {"a.b_index": "why"},
            **fields,
        }
    )


def keeps_its_promises(store: RecordStore) -> None:
    """Args: store: empty."""
    assert store.page(5) == [] and store.totals() == {} and store.count() == 0
    records = [record(n) for n in range(1, 9)]
    for _ in range(2):
        store.write(records, {"runs": 8, "vectors": 80}, {"2026-11-28": 9_000_000})
    assert store.count() == 8, "written twice is once"

    def numbers(*runs: RunRecord) -> list[int]:
        return [run.number for run in runs]

    assert numbers(*store.page(3)) == [8, 7, 6]
    assert numbers(*store.page(3, before=records[5])) == [5, 4, 3]
    assert numbers(*store.page(9, without=[records[7].run_id], busy=True)) == [7, 5, 3, 1]
    assert store.page(1)[0].skipped_indices == {}
    assert store.of(records[2].run_id) == records[2] and store.of("x") is None
    assert store.numbered(3) == records[2] and store.numbered(99) is None
    assert records[2].run_id in store.like(records[2].run_id[:-1], 3)

    store.write([record(3, state="halted", found=0)], {"runs": 1}, {"2026-11-28": 1})
    changed = store.of(records[2].run_id)
    assert changed is not None and changed.state == "halted"
    assert store.totals() == {"runs": 8, "vectors": 80}, "older totals replace no newer ones"
    assert 3 in numbers(*store.page(9, busy=True))

    days = store.days(NOON - timedelta(days=2), without=[records[6].run_id])
    assert set(days) == {"2026-11-28"}
    assert (days["2026-11-28"].runs, days["2026-11-28"].cost_usd) == (1, 9)
    assert (days["2026-11-28"].runs_cost_usd, days["2026-11-28"].saved_usd) == (0.5, 0.25)

    assert store.forget(NOON - timedelta(days=4)) == 4
    assert numbers(*store.page(9)) == [8, 7, 6, 5]
    assert store.totals()["vectors"] == 80
