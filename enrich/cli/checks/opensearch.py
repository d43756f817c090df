"""`check`: OpenSearch itself: its nodes, version, plugin, disks, and whether any index matches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from enrich import wiring
from enrich.cli.checks import indices
from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.screen import few, plural
from enrich.errors import EnrichError
from enrich.log_store import LogStore, RequestRefused
from enrich.log_store.cluster import settings_of
from enrich.reindexing.left_behind import LeftBehind
from enrich.settings import RUNS_INDEX, Settings


def look_at(settings: Settings, findings: Findings, seen: Seen) -> None:
    store = wiring.build_store(settings)
    user = settings.opensearch_login[0]
    who = f" as {user}" if user else ""
    if settings.opensearch_auth == "aws":
        who = f", signed for {settings.opensearch_aws_service}"
    _look_at_nodes(settings, store, findings)
    version = store.version()
    findings.ok(f"{version} at {store.connection.url}{who}")
    if version.objection:
        findings.bad(version.objection, 3)
        return
    if not version.number:
        with findings.or_unseen("its version"), suppress(RequestRefused):
            store.connection.request("GET", "/")
    if version.untested:
        findings.warn(f"{version} is older than what enrich is tested on: upgrade it when you can")
    _look_at_cluster(store, findings)
    seen.indices = store.stats.names()
    with findings.or_unseen("whether there are data streams"):
        if streams := store.stats.streams_left_out(seen.indices):
            findings.warn(
                f"data streams are left out: {', '.join(streams)}; the names of their indices "
                f"begin with a dot: to take them in, add .ds-{streams[0]}-* and the like to "
                "ENRICH_INDEX_PATTERN"
            )
    with findings.or_unseen("whether indices are closed"):
        if closed := store.stats.closed(None):
            _say_closed(closed, findings)
    if settings.enrich_history:
        _look_at_history(store, findings)
    with findings.or_unseen("whether a reindex was cut off"):
        for sentence in LeftBehind(store.connection, settings.index_expression).sentences():
            findings.warn(sentence)
    red: list[str] = []
    with findings.or_unseen("which indices are red"):
        red = store.backlog.red_indices()
    if not seen.indices and not red:
        findings.warn(
            f"no index matches {settings.index_expression}: nothing will be found until one "
            "is there; see ENRICH_INDEX_PATTERN"
        )
        seen.pending = 0
        return
    indices.look_at(settings, store, findings, seen)


def _look_at_nodes(settings: Settings, store: LogStore, findings: Findings) -> None:
    if len(settings.opensearch_nodes) == 1:
        return
    nodes = store.connection.nodes()
    for url, trouble in nodes:
        if not trouble:
            findings.ok(f"node {url} answers")
        else:
            findings.warn(f"node {url} is left out until it answers: {trouble}")


def _look_at_cluster(store: LogStore, findings: Findings) -> None:
    with findings.or_unseen("whether the k-NN plugin is installed"):
        plugins = store.connection.ask(
            list[dict[str, Any]], "GET", "/_cat/plugins", params={"format": "json"}
        )
        # A distribution calls it opensearch-knn, a node built from parts by its class.
        if any("knn" in str(plugin.get("component", "")).lower() for plugin in plugins):
            findings.ok("the k-NN plugin is installed")
        else:
            findings.bad("the k-NN plugin is not installed: vectors need opensearch-knn")
    with findings.or_unseen("action.auto_create_index"):
        merged = settings_of(store.connection)
        if str(merged.get("action.auto_create_index", "true")).lower() != "false":
            findings.warn(
                "action.auto_create_index is on: a late write to an index that was just "
                "deleted recreates it; set it to false, or give OPENSEARCH_USER no right to "
                "create indices (deploy/opensearch-role.json)"
            )
    with findings.or_unseen("whether a disk is full"):
        if blocker := store.preflight.seen_nodes().blocker:
            findings.bad(blocker)


def _look_at_history(store: LogStore, findings: Findings) -> None:
    try:
        store.history.try_rights()
    except EnrichError as error:
        findings.warn(
            f"records of runs cannot be kept in {RUNS_INDEX}, so that Redis' last 1,000 runs are "
            f"all that is known: {error}; ENRICH_HISTORY=off if that is wanted"
        )
    else:
        findings.ok(f"records of runs are kept in {RUNS_INDEX}")


def _say_closed(closed: Sequence[str], findings: Findings) -> None:
    findings.warn(
        f"{plural(len(closed), 'index')} that would match "
        f"{'is' if len(closed) == 1 else 'are'} closed, and left out of every number here: "
        f"{few(closed)}"
    )
