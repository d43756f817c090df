"""The consumer that people write first: auto-commit, one embeddings request and one bulk a batch.

What fails is printed and passed over, as such scripts do. It runs until it is ended.
"""

from __future__ import annotations

import json
import os
import sys

from confluent_kafka import Consumer
from openai import OpenAI, OpenAIError
from opensearchpy import OpenSearchException, helpers

from benchmarks.peers.logs import DIMENSIONS, MODEL, client, text_of

_BATCH = 50
_BATCH_SECONDS = 5.0
#: As short as the broker lets it be, so that what it is killed for is seen soon.
_SESSION_MS = 6_000


def main() -> None:
    opensearch, openai = client(), OpenAI()
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ["CONSUMER_GROUP_ID"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": True,
            "session.timeout.ms": _SESSION_MS,
        }
    )
    consumer.subscribe([os.environ["KAFKA_TOPIC"]])
    while True:
        logs = []
        for message in consumer.consume(_BATCH, _BATCH_SECONDS):
            if message.error() is None:
                log = json.loads(message.value() or b"{}")
                if log.get("level") == "ERROR":
                    logs.append(log)
        if not logs:
            continue
        try:
            answer = openai.embeddings.create(
                model=MODEL, input=[text_of(log) for log in logs], dimensions=DIMENSIONS
            )
            helpers.bulk(
                opensearch,
                (
                    {
                        "_op_type": "update",
                        "_index": f"{log['safe_project_uuid']}_{log['timestamp'][:7]}".replace(
                            "-", "_"
                        ),
                        "_id": log["document_id"],
                        "doc": {"log_vector": row.embedding},
                    }
                    for log, row in zip(logs, answer.data, strict=True)
                ),
            )
        except (OpenAIError, OpenSearchException) as error:
            print(f"a batch failed: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main()
