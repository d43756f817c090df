"""Whether an index's k-NN engine runs: which engine it is, and a refresh that needs it.

Faiss and nmslib are native libraries. Where a node lacks one, OpenSearch accepts writes until the
first refresh kills the shard's writer; the refresh and every write behind it are never answered,
while health stays green and searches work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from enrich.errors import EnrichError, ServerUnavailable
from enrich.log_store.connection import Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import NoAnswerInTime, RequestRefused

_LOOK_AGAIN_SECONDS = 600.0


@translates_odd_answers
class Engines:
    """Looks at engines; remembers for a while which indices have which."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        #: Whether an index's engine is native, and when that was seen.
        self._native: dict[str, tuple[bool, float]] = {}

    def is_native(self, index: str) -> bool:
        """Whether vectors of the index need a native library; False where it cannot be seen."""
        known, seen = self._native.get(index, (False, -math.inf))
        # Somebody may make an index of the same name anew.
        if self._clock() - seen > _LOOK_AGAIN_SECONDS:
            try:
                answer = self._connection.ask(
                    dict[str, Any],
                    "GET",
                    f"/{in_path(index)}/_mapping",
                    params={"filter_path": "*.mappings.properties.log_vector"},
                )
            except (RequestRefused, ServerUnavailable):
                return False
            except EnrichError:
                # Without the right to look it stays unknown.
                answer = {}
            known = needs_library(answer)
            self._native[index] = known, self._clock()
        return known

    def proves_itself(self, index: str) -> bool:
        """Have the engine build what was written last; whether it did.

        Raises:
            TransientError, AccessRefused: nothing was shown.
        """
        try:
            self._connection.request("POST", f"/{in_path(index)}/_refresh")
        except NoAnswerInTime:
            if self.server_answers():
                return False
            raise
        except RequestRefused:
            # Closed or deleted: the next write is told so.
            return True
        return True

    def server_answers(self) -> bool:
        """Whether OpenSearch itself answers: what did not is then an index."""
        try:
            self._connection.request("GET", "/")
        except EnrichError:
            return False
        return True


def needs_library(answer: Any) -> bool:
    """Whether an answer about the field's mapping shows another engine than Lucene's. Pure.

    OpenSearch's default engine, where a mapping names none, is a native one (faiss, once nmslib).
    """
    for index in answer.values() if isinstance(answer, dict) else ():
        vector = index
        for name in ("mappings", "properties", "log_vector"):
            vector = vector.get(name) if isinstance(vector, dict) else None
        if isinstance(vector, dict) and vector.get("type") == "knn_vector":
            method = vector.get("method")
            return not (isinstance(method, dict) and method.get("engine") == "lucene")
    return False
