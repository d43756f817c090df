"""Rows of the chaos matrix about indices that must not, or cannot, be written to.

Each is left out with its reason, not written to and not paid for, while the others get their
vectors. Roles and hidden fields are those of a real security plugin, on a node of the row's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from dev.opensearch_releases import OPENSEARCH_2_SECURED
from dev.services import Services
from enrich.enrichment.write_trials import DEAD
from enrich.log_store import index_template
from enrich.log_store.wholeness import PARTLY_HIDDEN
from tests.chaos.matrix import IN_FLIGHT, row
from tests.chaos.rows_search import another_index, some_logs
from tests.chaos.world import Stuck, World
from tests.secured import SecuredCluster

DIMENSIONS = 1536

#: Each with fields that somebody may want to hide, and a text that no other index has.
COUNT = 30


def detailed(word: str) -> list[dict[str, Any]]:
    return [
        {**log, "trace_id": f"trace-{n}", "log_details": {"user": f"u{n}", "ratio": 1.0}}
        for n, log in enumerate(some_logs(word, COUNT))
    ]


def of(w: World, index: str) -> set[tuple[str, str]]:
    return {key for key in w.truth.sources if key[0] == index}


def never_bought(w: World, index: str) -> None:
    """Nothing may be written to it, and none of its texts paid for."""
    w.truth.unmarkable |= of(w, index)
    w.truth.texts -= {w.truth.sources[key]["message"] for key in of(w, index)}


# -- append-only

APPENDED = "append_web_2026_11"


@contextmanager
def append_only(w: World) -> Iterator[None]:
    """An index whose documents can be created and not changed, as OpenSearch names them."""
    w.search("DELETE", f"/{APPENDED}?ignore_unavailable=true", ok=False)
    template = index_template(DIMENSIONS, [APPENDED])["template"]
    template["settings"]["index.append_only.enabled"] = True
    w.search.create(APPENDED, **template)
    rows = [line for log in some_logs("appended", COUNT) for line in ({"create": {}}, log)]
    body = "".join(json.dumps(line) + "\n" for line in rows).encode()
    try:
        w.search("POST", f"/{APPENDED}/_bulk?refresh=true", body)
        for key, hit in w.checker.read((APPENDED,)).items():
            w.truth.owe(key, hit["_source"])
        yield
    finally:
        w.search("DELETE", f"/{APPENDED}?ignore_unavailable=true", ok=False)


@row("opensearch", "an append-only index among the others: no document of it may be changed")
def index_append_only(w: World) -> None:
    w.until_judged(append_only(w))
    never_bought(w, APPENDED)
    w.start()
    w.under_way()
    w.told("index.append_only.enabled", APPENDED)


# -- a dead engine

SICK = "sick_web_2026_11"


@row("opensearch", "an index whose k-NN engine cannot run: its shard dies with the first vector")
def engine_dead(w: World) -> None:
    template = index_template(DIMENSIONS, [SICK])["template"]
    template["mappings"]["properties"]["log_vector"]["method"]["engine"] = "faiss"
    w.until_judged(another_index(w, SICK, some_logs("sick", COUNT), **template))
    sick = of(w, SICK)
    healthy = w.truth.texts - {w.truth.sources[key]["message"] for key in sick}
    # Nothing more is asked of it: its shard does not answer.
    w.truth.gone |= sick
    w.start()
    w.told(DEAD, SICK)
    w.until(lambda: not w.checker.owed(w.truth), "the other logs were enriched", 90.0)
    if (paid := w.api.seen["inputs"]) > len(healthy) + IN_FLIGHT:
        raise Stuck(f"{paid} texts were bought for {len(healthy)} of logs that can be written")
    w.search("DELETE", f"/{SICK}")


# -- roles

HIDING = "hidden_web_2026_11"
MASKING = "masked_web_2026_11"
READABLE = "reader_web_2026_11"


def secured(w: World) -> SecuredCluster:
    """Move to a node with the security plugin."""
    settings = {"action.auto_create_index": "false"}
    stack = Services(
        w.folder / "secured", release=OPENSEARCH_2_SECURED, opensearch_settings=settings
    )
    w.move_to(w.until_judged(stack))
    return w.until_judged(closing(SecuredCluster(stack)))


def as_user(w: World, cluster: SecuredCluster, **narrowed: Any) -> str:
    """Let workers log in as a user of least rights; its name."""
    user = cluster.user(**narrowed)
    w.env |= {"OPENSEARCH_USER": user.name, "OPENSEARCH_PASSWORD": user.password}
    return user.name


@row("opensearch", "fields hidden, masked or not to be written by roles; then all rights are given")
def fields_hidden(w: World) -> None:
    cluster = secured(w)
    name = as_user(w, cluster, patterns=["shop_*", "bank_*"])
    narrowed: dict[str, dict[str, Any]] = {
        HIDING: {"fls": ["~trace_id", "~log_details"]},
        MASKING: {"masked_fields": ["trace_id"]},
        READABLE: {"without": ["indices:data/write/*"]},
    }
    for index, how in narrowed.items():
        w.until_judged(another_index(w, index, detailed(index)))
        role = index.partition("_")[0]
        cluster.role(role, patterns=[index], **how)
        cluster.api("PUT", f"rolesmapping/{role}", {"users": [name]})
    w.start()
    w.under_way()
    w.told(PARTLY_HIDDEN, HIDING)
    w.told(PARTLY_HIDDEN, MASKING)
    w.told("indices:data/write/", READABLE)
    written = w.search.count(",".join(narrowed), {"exists": {"field": "ai_enrichment_status"}})
    if written:
        raise Stuck(f"{written} logs were written that are not seen whole")
    for index in narrowed:
        cluster.role(index.partition("_")[0], patterns=[index])


@row("opensearch", "the right to write is taken away in the middle of a run, and given back")
def rights_lost(w: World) -> None:
    cluster = secured(w)
    name = as_user(w, cluster)
    w.start()
    w.under_way()
    cluster.role(name, without=["indices:data/write/*"])
    w.met(bool(w.checker.owed(w.truth)), "nothing was owed any more")
    w.told("OPENSEARCH_USER")
    cluster.role(name)
    # The answers in flight, and a probe of one input for each halted run after it.
    w.truth.cut_inputs += IN_FLIGHT + 3
