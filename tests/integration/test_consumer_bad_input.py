"""Whatever a topic holds, on a real broker: bad messages are counted with their places and stop
nobody, and each good log gets its vector, however it is packed and dated."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from confluent_kafka import Producer

from dev.embedding_model import Model
from dev.services import Services
from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.realtime.messages import MAX_MESSAGE_BYTES, Poison
from enrich.settings import Settings
from enrich.text.extract import text_of
from enrich.wiring import build_ledger
from tests.conftest import ROOT, Search, wait_for
from tests.topics import Topics

PARTITIONS = 2
MESSAGE_BYTES = 20_000_000


GROUP = "readers-of-odd-logs"


class Sender:
    """Produces values by name, in turns to each partition, and knows where each came to lie."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.topic = topics.create(partitions=PARTITIONS, max_message_bytes=MESSAGE_BYTES)
        self.places: dict[str, tuple[int, int]] = {}

    def send(self, messages: Mapping[str, bytes | None], **options: Any) -> None:
        names = list(messages)
        for partition in range(PARTITIONS):
            some = names[partition::PARTITIONS]
            values = [messages[name] for name in some]
            places = self._topics.produce(self.topic, values, partition=partition, **options)
            self.places |= dict(zip(some, places, strict=True))

    def in_transaction(self, messages: Mapping[str, bytes], *, commit: bool) -> None:
        producer = Producer({**self._topics.options, "transactional.id": f"odd-{commit}"})
        producer.init_transactions(60)
        producer.begin_transaction()
        for value in messages.values():
            producer.produce(self.topic, value, partition=0)
        assert producer.flush(60) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(60)


def log(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "level": "ERROR",
        "document_id": name,
        "project_uuid": "Odd-Shop",
        "timestamp": "2026-05-15T12:00:00Z",
        "message": f"cannot reach the stock of {name}",
    } | changed


def encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


#: The same noon in each form, and times that are an hour off.
TIMES: dict[str, Any] = {
    "seconds": 1778846400,
    "milliseconds": 1778846400000,
    "microseconds": 1778846400000000,
    "fraction": 1778846400.25,
    "digits": "1778846400000",
    "zone": "2026-05-15T21:00:00+09:00",
    "no zone": "2026-05-15 12:00:00,123",
    "nanoseconds": "2026-05-15T12:00:00.123456789Z",
    "an hour ahead": 1778846400 + 3600,
    "missing": None,
}

BIG = "the payment of order 17 failed: " + "카드 거절 " * 400_000


def good_logs() -> dict[str, bytes | None]:
    forms = {f"time {name}": log(f"time {name}", timestamp=at) for name, at in TIMES.items()}
    forms |= {
        "half a pair": log("half a pair"),
        "log level": log("log level", level=None, log_level="ERROR"),
        "other id": log("other id", document_id="", log_id="other id"),
        "safe project": log("safe project", project_uuid=None, safe_project_uuid="odd_shop"),
        "five megabytes": log("five megabytes", message=BIG),
    }
    values: dict[str, bytes | None] = {name: encoded(form) for name, form in forms.items()}
    pair = encoded(log("half a pair", more="X"))
    values["half a pair"] = pair.replace(b'"X"', rb'"\ud83d"')
    values["spaced"] = b" \r\n" + json.dumps(log("spaced"), indent=2).encode() + b"\n"
    return values


def bad_messages() -> dict[Poison, bytes | None]:
    text = json.dumps(log("bad"))
    return {
        Poison.TOMBSTONE: None,
        Poison.NOT_JSON: b"ERROR cannot reach the stock",
        Poison.OTHER_ENCODING: text.encode("utf-16"),
        Poison.BYTE_ORDER_MARK: text.encode("utf-8-sig"),
        Poison.NOT_AN_OBJECT: f"[{text}]".encode(),
        Poison.NOT_A_NUMBER: f'{text[:-1]}, "ms": NaN}}'.encode(),
        Poison.DUPLICATE_KEYS: f'{text[:-1]}, "document_id": "other"}}'.encode(),
        Poison.TOO_DEEP: f'{text[:-1]}, "x": {"[" * 9000}{"]" * 9000}}}'.encode(),
        Poison.TOO_LARGE: encoded(log("bad", message="x" * MAX_MESSAGE_BYTES)),
        Poison.ID_MISSING: encoded(log("")),
        Poison.ID_WRONG_TYPE: encoded(log("bad", document_id=["bad"])),
        Poison.ID_TOO_LONG: encoded(log("bad" * 200)),
        Poison.PROJECT_MISSING: encoded(log("bad", project_uuid=None)),
        Poison.PROJECT_WRONG_TYPE: encoded(log("bad", project_uuid={"id": "odd-shop"})),
        Poison.PROJECT_TOO_LONG: encoded(log("bad", project_uuid="odd-shop" * 40)),
        Poison.PROJECT_UNSAFE: encoded(log("bad", project_uuid="*,-odd-shop")),
        Poison.TIME_UNREADABLE: encoded(log("bad", timestamp="yesterday")),
        Poison.TIME_OUT_OF_RANGE: encoded(log("bad", timestamp="9999-12-31T23:59:59Z")),
    }


#: Kafka dates each message itself, and no fault of the reader is known.
NOT_FROM_OUTSIDE = {Poison.TIME_MISSING, Poison.UNFORESEEN}

QUIET: dict[str, bytes | None] = {
    "info": encoded(log("info", level="INFO")),
    "no level": encoded({"message": "hello"}),
    "info with NaN": b'{"level": "INFO", "ms": NaN}',
    "info in UTF-16": json.dumps({"level": "INFO"}).encode("utf-16"),
    "info without an id": encoded({"level": "INFO", "project_uuid": "*"}),
}

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

#: Of any kind: doubled, empty, no text, nothing.
HEADERS = [("trace", b"\xff\x00"), ("trace", b"2"), ("", b""), ("nothing", None), ("k" * 300, b"v")]


def test_bad_messages_are_counted_and_each_good_log_gets_its_vector(
    topics: Topics,
    clean: Services,
    search: Search,
    model: Model,
    settings: Callable[..., Settings],
) -> None:
    sender = Sender(topics)
    by_codec = {
        codec: {f"{codec} {n}": encoded(log(f"{codec} {n}")) for n in range(3)} for codec in CODECS
    }
    committed = {"in a transaction": encoded(log("in a transaction"))}
    with_headers = {"with headers": encoded(log("with headers"))}
    good = good_logs()
    bad = bad_messages()
    assert bad.keys() | NOT_FROM_OUTSIDE == set(Poison)

    # Each partition has good logs before, between and after what is bad.
    noon = 1778846400000
    sender.send(by_codec["none"])
    sender.send({code.value: value for code, value in bad.items()}, compression_type="lz4")
    sender.send(QUIET)
    sender.send(good, compression_type="zstd", timestamp=noon)
    sender.in_transaction({"aborted": encoded(log("aborted"))}, commit=False)
    sender.in_transaction(committed, commit=True)
    sender.send(with_headers, headers=HEADERS, key=b"\x00\xff")
    for codec in CODECS[1:]:
        sender.send(by_codec[codec], compression_type=codec)

    names = {
        *good,
        *committed,
        *with_headers,
        *(name for some in by_codec.values() for name in some),
    }
    index = "odd_shop_2026_05"
    search.create(index)
    # The shipper has brought all of them into one form.
    documents = [log(name, message=BIG) if "megabytes" in name else log(name) for name in names]
    search.index(
        index, [{"_id": one["document_id"], **one} for one in [*documents, log("aborted")]]
    )

    consumer = clean.spawn(
        GROUP,
        [sys.executable, "-m", "enrich", "consume"],
        env={
            "PYTHONPATH": str(ROOT),
            "ENRICH_LOG_FILE": "none",
            "KAFKA_BOOTSTRAP_SERVERS": topics.servers,
            "KAFKA_TOPIC": sender.topic,
            "CONSUMER_GROUP_ID": GROUP,
            "ENRICHMENT_BATCH_TIMEOUT": "0.2",
        },
    )
    ledger = build_ledger(settings())

    def counted() -> RealtimeSummary | None:
        return next(iter(ledger.realtime.summary()), None)

    every = len(names) + len(bad) + len(QUIET)
    wait_for(lambda: (one := counted()) is not None and one.messages >= every, consumer)
    summary = counted()
    assert summary is not None and summary.messages == every
    assert summary.vectors == len(names), summary.outcomes
    assert summary.outcomes["other_level"] == len(QUIET)
    assert summary.outcomes["poison"] == len(bad)
    assert summary.poison_codes == Counter(code.value for code in bad)

    told = consumer.log.read_text()
    for code in bad:
        partition, offset = sender.places[code.value]
        assert f"poison at {sender.topic}/{partition} offset {offset}: {code.value}\n" in told
    # Coordinates alone: no text of any log.
    assert "stock" not in told and "Traceback" not in told

    sources = search.sources(index)
    assert "log_vector" not in sources.pop("aborted")
    assert sources.keys() == names
    wanted = model.embed([text_of(source) for source in sources.values()])
    stored = np.asarray([source["log_vector"] for source in sources.values()], dtype=np.float32)
    assert np.array_equal(stored, wanted)
    assert {one["ai_enrichment_method"] for one in sources.values()} == {"realtime_consumer"}

    consumer.stop(grace=60)
    assert consumer.returncode == 0
    ends = {n: max(o for p, o in sender.places.values() if p == n) + 1 for n in range(PARTITIONS)}
    assert topics.committed(GROUP, sender.topic) == ends
    ledger.close()
