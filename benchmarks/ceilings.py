"""What OpenSearch itself can take: ready vectors, nothing read, nothing checked, nothing else.

No pipeline that writes vectors into these indices can be faster than `index`, and none that sends
partial documents faster than `update`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import orjson
from more_itertools import sliced

from benchmarks.cluster import Cluster
from benchmarks.corpus import Corpus, Log, Version

Way = Literal["index", "update"]

BODY = 500
CONNECTIONS = 2


def ceiling(cluster: Cluster, corpus: Corpus, versions: Sequence[Version], way: Way) -> float:
    """Write every log's vector; vectors a second.

    `index` sends the whole source as it was read, under the version that was read, with no
    pipeline, which is how the product writes; `update` sends the vector as a partial document.
    Bodies of 500 on two connections: more of either is no faster on a small machine.
    """
    vectors = corpus.encoded()
    bodies = _bodies(corpus.logs, versions, vectors, way)
    lock = threading.Lock()
    troubles: list[BaseException] = []

    def send() -> None:
        try:
            while True:
                with lock:
                    body = next(bodies, None)
                if body is None:
                    return
                cluster.bulk(body)
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if troubles:
        raise troubles[0]
    return len(corpus.logs) / took


def _bodies(
    logs: Sequence[Log], versions: Sequence[Version], vectors: Sequence[bytes], way: Way
) -> Iterator[bytes]:
    row = _index_row if way == "index" else _update_row
    pairs = list(zip(logs, versions, strict=True))
    for some in sliced(pairs, BODY):
        yield b"".join(row(log, version, vectors[log.text]) for log, version in some)


def _index_row(log: Log, version: Version, vector: bytes) -> bytes:
    action = {
        "_index": log.index,
        "_id": log.id,
        "if_seq_no": version.seq_no,
        "if_primary_term": version.primary_term,
        "pipeline": "_none",
    }
    return b"".join(
        (orjson.dumps({"index": action}), b"\n", log.source[:-1], b',"log_vector":', vector, b"}\n")
    )


def _update_row(log: Log, _: Version, vector: bytes) -> bytes:
    action = orjson.dumps({"update": {"_index": log.index, "_id": log.id}})
    return b"".join((action, b'\n{"doc":{"log_vector":', vector, b"}}\n"))
