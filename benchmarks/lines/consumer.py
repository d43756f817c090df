"""The consumer of Kafka beside a bare loop, and beside the script that people write first.

Speed: topics of which 1 % and 5 % are ERROR logs whose texts are cached, read by the product and by
loops that do nothing but JSON and the level. Memory: a million messages. Losses: product and script
are killed with SIGKILL each time that offsets were committed, and what has no vector in the end is
counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis

from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.rounds import Figure, alternate, at_least, at_most, median, ratio, spread, stated
from benchmarks.sampling import Sampler, cpu_seconds
from benchmarks.stage import Stage, StageFailed
from benchmarks.topic import Topic, as_messages, mixed
from dev.service import Service
from dev.services import CHECKOUT

#: Messages of a topic by the share of ERROR logs in it, and what of the loop's speed is held to.
QUICK = 200_000
FULL = 1_000_000
_TARGETS = {0.01: 0.8, 0.05: 0.5}
_TEXTS = 500
#: Of the memory's topic.
_MANY = 1_000_000

_KILLED_LOGS = 2_000
_KILLS = 4
#: An API as far away as most: what is under way when a process is killed is under way for long.
_LATENCY_MS = 400.0

_LONG = 1800.0
_REST_SECONDS = 8.0


def measure(stage: Stage) -> list[Figure]:
    figures = []
    for share, target in _TARGETS.items():
        figures += _speed(stage, share, target)
    return [*figures, *_memory(stage), *_losses(stage)]


# -- speed


def _speed(stage: Stage, share: float, target: float) -> list[Figure]:
    size = stage.size(QUICK, FULL)
    corpus = make_corpus(round(size * share), distinct_share=min(1.0, _TEXTS / (size * share)))
    topic = Topic(stage.stack.kafka.url, f"mixed-{share:.2f}")
    topic.fill(mixed(corpus, size))
    # Its vectors are in the cache from then on.
    _run_of_product(stage, corpus, topic, "warming")
    rounds = stage.rounds(3, 5)
    results = alternate(
        {
            "bare loop, orjson": partial(_bare_loop, stage, topic, "orjson"),
            "bare loop, json": partial(_bare_loop, stage, topic, "json"),
            "product": partial(_run_of_product, stage, corpus, topic, "speed"),
        },
        rounds,
        stage.say,
    )
    stage.data[f"consumer {share:.0%}"] = {"messages": topic.size, "rounds": results}
    rates = {name: [one["rate"] for one in several] for name, several in results.items()}
    written = [one["rate"] * share for one in results["product"]]
    return [
        *(
            stated(
                "consumer",
                f"{share:.0%} ERROR: {name}",
                median(values),
                "messages/s",
                f"spread {spread(values):.0%}; "
                f"{median([one['cpu'] for one in results[name]]) / topic.size * 1e6:.1f} "
                "µs of a processor each",
            )
            for name, values in rates.items()
        ),
        stated("consumer", f"{share:.0%} ERROR: vectors", median(written), "/s"),
        *(
            at_least(
                "consumer",
                f"{share:.0%} ERROR: product, of {name}",
                ratio(rates["product"], rates[name]),
                target,
            )
            for name in ("bare loop, json", "bare loop, orjson")
        ),
    ]


def _bare_loop(stage: Stage, topic: Topic, loads_by: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.bare_loop", str(topic.size), loads_by],
        env={**os.environ, **_environment(stage, topic, f"bare-{time.time_ns()}")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageFailed(f"the bare loop ended with status {done.returncode}: {done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "rate": told["messages"] / told["seconds"], "cpu": told["cpu_seconds"]}


def _run_of_product(stage: Stage, corpus: Corpus, topic: Topic, kind: str) -> dict[str, Any]:
    """Consume the whole topic in a group of its own: from when it has its partitions until the
    logs of the last batch are committed."""
    fresh(stage.cluster, corpus)
    stage.api.reset(latency_ms=50.0)
    group = f"{kind}-{time.time_ns()}"
    # What comes after the last ERROR log of a partition is committed later, as nobody waits for it.
    read = sum(topic.ends)
    consumer = _consumer(stage, topic, group)
    try:
        with topic.progress(group) as progress:
            _until_assigned(consumer)
            begun, cpu = time.perf_counter(), cpu_seconds(consumer.pid)
            _until(progress.through, "all ERROR logs were committed")
            seconds = time.perf_counter() - begun
            used = cpu_seconds(consumer.pid) - cpu
    finally:
        consumer.stop()
    vectors = stage.cluster.with_vector()
    if vectors != len(corpus.logs):
        raise StageFailed(f"{vectors} of {len(corpus.logs)} logs have a vector after {kind}")
    return {"rate": read / seconds, "seconds": seconds, "cpu": used, "api": stage.api.counts()}


def _until_assigned(consumer: Service) -> None:
    deadline = time.monotonic() + 120.0
    while "partitions assigned: " not in consumer.log.read_text(errors="replace"):
        if time.monotonic() > deadline or not consumer.running:
            raise StageFailed(f"the consumer was given no partitions; see {consumer.log}")
        time.sleep(0.01)


# -- memory


def _memory(stage: Stage) -> list[Figure]:
    """Resident memory while a million messages go by, at a tenth of them and at the end."""
    size = stage.options.size or _MANY
    corpus = make_corpus(size // 1000, distinct_share=min(1.0, _TEXTS / (size / 1000)))
    topic = Topic(stage.stack.kafka.url, "many")
    topic.fill(mixed(corpus, size))
    fresh(stage.cluster, corpus)
    group = f"memory-{time.time_ns()}"
    consumer = _consumer(stage, topic, group)
    try:
        with (
            topic.progress(group) as progress,
            Sampler(
                programs={"consumer": consumer.pid},
                gauges={"committed": lambda: float(progress.committed())},
                every=0.25,
            ) as sampler,
        ):
            progress.until(size, _LONG)
            # One look at the end.
            time.sleep(0.5)
    finally:
        consumer.stop()
    looks = [
        (sample.gauges["committed"], sum(sample.rss["consumer"].values()) / 1e6)
        for sample in sampler.samples
    ]
    early = max(rss for committed, rss in looks if committed <= size * 0.2)
    late = max(rss for committed, rss in looks if committed >= size * 0.9)
    stage.data["consumer memory"] = {"looks": looks}
    return [
        stated(
            "consumer", "memory up to a fifth of the messages", early, "MB", f"{size:,} messages"
        ),
        stated("consumer", "memory in the last tenth", late, "MB"),
        at_most("consumer", "memory in the last tenth, of that before", late / early, 1.1),
    ]


# -- what people would otherwise build


def _losses(stage: Stage) -> list[Figure]:
    """Vectors a second and inputs of an undisturbed run, and what is lost by kills."""
    corpus = make_corpus(_KILLED_LOGS)
    topic = Topic(stage.stack.kafka.url, "killed")
    topic.fill(as_messages(corpus))
    figures = []
    found: dict[str, Any] = {}
    for name in ("product", "script"):
        for kills in (0, _KILLS):
            stage.say(f"consumer: {name}, killed {kills} times")
            one = _killed(stage, corpus, topic, name, kills)
            what = f"{name}, {one['kills']} × kill -9" if kills else name
            found[what] = one
            asked = f"{one['inputs']} inputs in {one['requests']} requests"
            if not kills:
                note = f"{asked} for {len(corpus.logs)} logs of {len(corpus.texts)} texts"
                rate = one["vectors"] / one["seconds"]
                figures.append(stated("consumer", f"{what}: vectors", rate, "/s", note))
            lost = len(corpus.logs) - one["vectors"]
            lost_by = f"{what}: logs passed over"
            if name == "product":
                figures.append(at_most("consumer", lost_by, lost, 0, "", asked))
            else:
                figures.append(stated("consumer", lost_by, lost, "", asked))
    stage.data["consumer losses"] = found
    return figures


def _killed(stage: Stage, corpus: Corpus, topic: Topic, name: str, kills: int) -> dict[str, Any]:
    """Let a consumer read the topic, and kill it right after so many of its commits."""
    fresh(stage.cluster, corpus)
    _forget(stage)
    stage.api.reset(latency_ms=_LATENCY_MS)
    there = stage.cluster.written()
    group = f"{name}-{kills}-{time.time_ns()}"
    start = partial(_consumer if name == "product" else _script, stage, topic, group)
    done = 0
    consumer = start()
    try:
        with topic.progress(group) as progress:
            while done < kills and (before := progress.committed()) < topic.size:
                progress.until(before + 1, _LONG, every=0.01)
                consumer.kill()
                done += 1
                consumer = start()
            _until(lambda: stage.cluster.written() > there, "a first vector was written")
            begun = time.perf_counter()
            progress.until(topic.size, _LONG)
        seconds = _until_at_rest(stage, begun)
    finally:
        consumer.kill()
    counts = stage.api.counts()
    return {
        "kills": done,
        "vectors": stage.cluster.with_vector(),
        "seconds": seconds,
        "inputs": counts["inputs"],
        "requests": counts["requests"],
    }


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONG
    while not condition():
        if time.monotonic() > deadline:
            raise StageFailed(f"it was waited in vain until {what}")
        time.sleep(0.02)


def _until_at_rest(stage: Stage, begun: float) -> float:
    """Wait until nothing was written for some seconds: the script commits before its last batch is
    through. The seconds until the last write."""
    last, at = stage.cluster.written(), time.perf_counter()
    while time.perf_counter() - at < _REST_SECONDS:
        if (now := stage.cluster.written()) != last:
            last, at = now, time.perf_counter()
        time.sleep(0.05)
    return at - begun


# -- programs


def _consumer(stage: Stage, topic: Topic, group: str) -> Service:
    return stage.stack.spawn(
        group,
        [sys.executable, "-m", "enrich", "consume"],
        env={**_environment(stage, topic, group), "ENRICH_LOG_FILE": "none", **stage.options.env},
    )


def _script(stage: Stage, topic: Topic, group: str) -> Service:
    return stage.stack.spawn(
        group,
        [sys.executable, "-m", "benchmarks.peers.kafka_script"],
        env=_environment(stage, topic, group),
    )


def _environment(stage: Stage, topic: Topic, group: str) -> dict[str, str]:
    return {
        **stage.stack.environment(),
        "PYTHONPATH": str(CHECKOUT),
        "KAFKA_TOPIC": topic.name,
        "CONSUMER_GROUP_ID": group,
        # As the script: who was killed is missed soon, and nobody waits for what is not measured.
        "KAFKA_EXTRA_CONFIG": '{"session.timeout.ms": 6000}',
    }


def _forget(stage: Stage) -> None:
    """Empty Redis."""
    with redis.Redis(host="127.0.0.1", port=stage.stack.redis.port) as connection:
        connection.flushdb()
