"""A pipeline of LlamaIndex's parts, put together as its documentation shows them.

An IngestionPipeline with its cache, and in it OpenAIEmbedding with a cache by text and four
workers; the vectors are written by opensearch-py's helpers.
"""

from __future__ import annotations

import asyncio
import os

from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.openai import OpenAIEmbedding

from benchmarks.peers.logs import DIMENSIONS, MODEL, Clock, client, owed, text_of, write

BATCH = 500


async def main() -> None:
    opensearch = client()
    embedding = OpenAIEmbedding(
        model=MODEL,
        dimensions=DIMENSIONS,
        embed_batch_size=100,
        num_workers=4,
        embeddings_cache=SimpleKVStore(),
        api_base=os.environ["OPENAI_BASE_URL"],
    )
    pipeline = IngestionPipeline(transformations=[embedding], cache=IngestionCache())
    clock = Clock()
    written = 0
    for hits in owed(opensearch, BATCH):
        nodes = [TextNode(id_=hit["_id"], text=text_of(hit["_source"])) for hit in hits]
        embedded = await pipeline.arun(nodes=nodes)
        written += write(opensearch, hits, (node.get_embedding() for node in embedded))
    clock.report(written)


if __name__ == "__main__":
    asyncio.run(main())
