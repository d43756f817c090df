"""The least that a consumer can do: poll, JSON, the level. It keeps nothing and commits nothing.

Arguments: how many messages the topic has, and `json` or `orjson`. Settings come from the variables
that the product reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson
from confluent_kafka import Consumer

_AT_ONCE = 1000
_LOADS: dict[str, Callable[[Any], Any]] = {"json": json.loads, "orjson": orjson.loads}


def main(expected: int, loads_by: str) -> None:
    loads = _LOADS[loads_by]
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ["CONSUMER_GROUP_ID"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ["KAFKA_TOPIC"]])
    messages = wanted = 0
    begun = cpu = 0.0
    while messages < expected:
        batch = consumer.consume(_AT_ONCE, 1.0)
        if batch and not begun:
            begun, cpu = time.perf_counter(), time.process_time()
        for message in batch:
            if message.error() is None and loads(message.value()).get("level") == "ERROR":
                wanted += 1
        messages += len(batch)
    told = {
        "messages": messages,
        "wanted": wanted,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
    }
    print(json.dumps(told), flush=True)
    consumer.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
