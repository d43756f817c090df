"""Which indices may be given vectors: before a token is spent on their logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enrich.enrichment.write_trials import DEAD
from enrich.errors import Halt
from enrich.ledger import IndexState, IndexStates
from enrich.log_store import Readiness
from enrich.log_store.interfaces import RunStore


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of looking at indices."""

    #: Those that may be written to, in the order in which they were asked for.
    fit: Sequence[str]
    #: Of all others, why not.
    skipped: Mapping[str, str]
    #: What was found of them.
    ready: Readiness


def halt_if_unfit(store: RunStore) -> int:
    """See that vectors can be written at all; how many data nodes there are.

    Raises:
        Halt: OpenSearch is of a version, or in a state, in which no vector can be written.
    """
    if objection := store.version().objection:
        raise Halt(objection)
    nodes = store.preflight.nodes()
    if nodes.blocker:
        raise Halt(nodes.blocker)
    return nodes.data


def check_indices(
    store: RunStore,
    states: IndexStates,
    indices: Sequence[str],
    unsorted: frozenset[str] = frozenset(),
) -> Checked:
    """Look at indices, and give those that lack our fields in their mapping these fields.

    Args:
        unsorted: those that cannot be searched in the order of time.
    """
    known = states.of(indices)
    skipped = {i: DEAD for i, state in known.items() if state is IndexState.DEAD}
    alive = [index for index in indices if index not in skipped]
    ready = store.preflight.inspect(alive)
    ready = ready.completed(store.mappings.complete(ready.lacking))
    fit = [index for index in alive if index not in ready.skipped]
    refused = store.wholeness.survey(fit, ready, unsorted)
    return Checked(
        fit=[index for index in fit if index not in refused],
        skipped=skipped | ready.skipped | refused,
        ready=ready,
    )
