"""A pipeline of LangChain's parts, put together as its documentation shows them.

CacheBackedEmbeddings before OpenAIEmbeddings, the cache in memory (the faster of the two stores
shown there), the vectors written by opensearch-py's helpers. `check_embedding_ctx_length=False` is
what it says to set for any server other than OpenAI's own.
"""

from __future__ import annotations

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.stores import InMemoryByteStore
from langchain_openai import OpenAIEmbeddings

from benchmarks.peers.logs import DIMENSIONS, MODEL, Clock, client, owed, text_of, write

BATCH = 500


def main() -> None:
    opensearch = client()
    model = OpenAIEmbeddings(
        model=MODEL, dimensions=DIMENSIONS, chunk_size=BATCH, check_embedding_ctx_length=False
    )
    embeddings = CacheBackedEmbeddings.from_bytes_store(
        model, InMemoryByteStore(), namespace=MODEL, key_encoder="sha256"
    )
    clock = Clock()
    written = 0
    for hits in owed(opensearch, BATCH):
        vectors = embeddings.embed_documents([text_of(hit["_source"]) for hit in hits])
        written += write(opensearch, hits, vectors)
    clock.report(written)


if __name__ == "__main__":
    main()
