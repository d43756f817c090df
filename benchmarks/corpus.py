"""The logs that every contender gets, and the vectors that are right for them.

Real failures, multiplied by dev/sample_logs. The vectors come from the embeddings server's own
model, before any clock runs, so that a ceiling writes bit for bit what the product writes: what
building a graph costs depends on how the vectors lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import orjson
from more_itertools import sliced

from benchmarks.cluster import Cluster
from dev.embedding_model import Model
from dev.failures import failures
from dev.sample_logs import generate
from enrich.log_store import index_template
from enrich.text.extract import text_of

DIMENSIONS = 1536
_BODY = 1000


@dataclass(frozen=True, slots=True)
class Log:
    """One ERROR log, as its shipper sends it."""

    index: str
    id: str
    #: The source's JSON.
    source: bytes
    #: Which of the corpus' texts it has.
    text: int


@dataclass(frozen=True, slots=True)
class Version:
    """What a conditional write names."""

    seq_no: int
    primary_term: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Logs in the order in which they arrive."""

    logs: list[Log]
    #: The distinct texts.
    texts: list[str]
    #: Their vectors, of shape (len(texts), DIMENSIONS).
    vectors: npt.NDArray[np.float32]

    @property
    def indices(self) -> list[str]:
        return sorted({log.index for log in self.logs})

    def encoded(self) -> list[bytes]:
        """The vectors as JSON."""
        return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in self.vectors]


@cache
def model() -> Model:
    return Model()


def make_corpus(
    size: int,
    *,
    distinct_share: float = 0.3,
    seed: int = 7,
    shared: int = 0,
    place: Callable[[int], str] | None = None,
) -> Corpus:
    """`size` ERROR logs of which `distinct_share` have a text of their own.

    Args:
        shared: this many logs, spread evenly, get the message of the first one as well.
        place: the index of the n-th log; by default dev/sample_logs' projects and months.
    """
    known: dict[str, int] = {}
    logs: list[Log] = []
    samples = generate(
        size,
        errors=size,
        seed=seed,
        # A library's own words alone, as the figures of docs/performance.md have them.
        failures=[failure for failure in failures() if not failure.server],
        ordinary=(),
        distinct_share=distinct_share,
    )
    common = ""
    for n, sample in enumerate(samples):
        document = sample.document
        common = common or document["message"]
        if shared and n % max(1, size // shared) == 0:
            document["message"] = common
        text = known.setdefault(text_of(document), len(known))
        index = place(n) if place else sample.index
        logs.append(Log(index, sample.id, orjson.dumps(document), text))
    texts = list(known)
    return Corpus(logs=logs, texts=texts, vectors=_embedded(texts))


def _embedded(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    # In slices, because the pooling's temporaries are twice as large as the result.
    return np.concatenate([model().embed(list(some)) for some in sliced(texts, 1000)])


def create_indices(
    cluster: Cluster, names: Sequence[str], *, engine: str = "", **settings: str
) -> None:
    """Make indices from the product's own template; one node has no place for a replica.

    Args:
        engine: of the vectors' index, in place of the template's.
    """
    template = index_template(DIMENSIONS, names)["template"]
    if engine:
        template["mappings"]["properties"]["log_vector"]["method"]["engine"] = engine
    template["settings"] |= {"number_of_replicas": 0, **settings}
    for name in names:
        cluster("PUT", f"/{name}", template)


def load(cluster: Cluster, logs: Sequence[Log]) -> list[Version]:
    """Index logs into indices that exist; the version of each."""
    versions = []
    for body in _bodies(logs):
        answer = cluster.bulk(body, "errors,items.*._seq_no,items.*._primary_term")
        for item in answer["items"]:
            got = item["index"]
            versions.append(Version(got["_seq_no"], got["_primary_term"]))
    return versions


def fresh(cluster: Cluster, corpus: Corpus) -> list[Version]:
    """Empty the cluster, load the corpus, and let it settle; the version of each log.

    Its indices are refreshed each second, as those that somebody searches. By default OpenSearch
    stops refreshing a shard that was not read for half a minute, and writing to it is cheaper then:
    of two writers that take minutes, the one that also reads would be held to other work.
    """
    cluster.clear()
    create_indices(cluster, corpus.indices, refresh_interval="1s")
    versions = load(cluster, corpus.logs)
    cluster("POST", "/_flush")
    cluster("POST", "/_refresh")
    cluster.rest()
    return versions


def _bodies(logs: Sequence[Log]) -> Iterator[bytes]:
    for some in sliced(logs, _BODY):
        rows: list[bytes] = []
        for log in some:
            rows.append(orjson.dumps({"index": {"_index": log.index, "_id": log.id}}))
            rows.append(log.source)
        yield b"\n".join(rows) + b"\n"
