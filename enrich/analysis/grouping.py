"""Texts that say the same in other words, put together by their vectors. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enrich.vectors import Vector


def groups_of(vectors: Sequence[Vector | None], least_cosine: float) -> list[list[int]]:
    """Which vectors belong together, as their places; in the order of each group's first.

    Each joins the nearest of the groups before it whose first has at least this cosine with it, and
    begins one of its own otherwise. So nothing in a group is farther from its first, and no chain
    of neighbours leads from one thing to another. What has no vector stays alone.

    Args:
        vectors: of one shape, none of them zero; what should lead a group comes first.
        least_cosine: −1 to 1.
    """
    groups: list[list[int]] = []
    leaders: list[Vector] = []
    of_leader: list[int] = []
    for place, vector in enumerate(vectors):
        if vector is not None:
            unit = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64))
            if leaders:
                cosines = np.stack(leaders) @ unit
                nearest = int(np.argmax(cosines))
                # A vector has not quite 1 with itself.
                if cosines[nearest] >= least_cosine - 1e-6:
                    groups[of_leader[nearest]].append(place)
                    continue
            leaders.append(unit)
            of_leader.append(len(groups))
        groups.append([place])
    return groups
