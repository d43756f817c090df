"""The script that the product replaces: 100 logs a cycle, one API call and one update for each.

As scheduled it ran every ten minutes; here its cycles follow each other at once. Stops after as
many logs as the first argument says, because all it has to show is a rate.
"""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI

from benchmarks.peers.logs import DIMENSIONS, INDICES, MODEL, OWED, Clock, client, text_of

LOGS_A_CYCLE = 100


def main(most: int) -> None:
    opensearch, openai = client(), OpenAI()
    clock = Clock()
    done = 0
    while done < most:
        opensearch.indices.refresh(index=INDICES)
        body: dict[str, Any] = {**OWED, "size": min(LOGS_A_CYCLE, most - done)}
        hits = opensearch.search(index=INDICES, body=body)["hits"]["hits"]
        if not hits:
            break
        for hit in hits:
            answer = openai.embeddings.create(
                model=MODEL, input=text_of(hit["_source"]), dimensions=DIMENSIONS
            )
            vector = answer.data[0].embedding
            opensearch.update(
                index=hit["_index"], id=hit["_id"], body={"doc": {"log_vector": vector}}
            )
            done += 1
    clock.report(done)


if __name__ == "__main__":
    main(int(sys.argv[1]))
