"""Rows about consumers of Kafka: what may happen to them, to the broker and its topic, to the
servers behind, and to the documents of the logs. Part of the matrix, see matrix.py; judged from the
topic itself, see topic_checker.py."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.chaos.matrix import ROWS, Row, redis_lost
from tests.chaos.topic_world import HEALED, PATIENCE, PER_SECOND, SESSION, TopicWorld
from tests.chaos.traffic import Item
from tests.chaos.world import BANK, BATCH, SHOP, Stuck

Harm = Callable[[TopicWorld], None]


def row(told: str, *, name: str = "") -> Callable[[Harm], Harm]:
    """Make a row of a function."""

    def add(harm: Harm) -> Harm:
        full = f"rt-{name or harm.__name__.replace('_', '-')}"
        ROWS[full] = Row(name=full, group="realtime", told=told, harm=harm, world=TopicWorld)
        return harm

    return add


def variant(harm: Harm, told: str, name: str, *, protocol: str = "", mode: str = "") -> None:
    """The same harm in another protocol of groups, or another mode."""

    def again(w: TopicWorld) -> None:
        w.protocol = protocol or w.protocol
        w.mode = mode or w.mode
        harm(w)

    row(told, name=name)(again)


@row("nothing: the measure for the others")
def calm(w: TopicWorld) -> None:
    w.start()
    w.traffic.finish()


# -- kill -9 between each two steps


def killed(moment: str, told: str, *, mode: str = "attach") -> None:
    """A consumer dies once at a moment; another takes over."""

    def harm(w: TopicWorld) -> None:
        w.mode = mode
        if moment == "index-made":
            w.search("DELETE", f"/{SHOP}")
        dying = w.consumer(
            wait=False,
            stumbling=True,
            CHAOS_MOMENT=moment,
            CHAOS_FLAG=str(w.folder / "stumbled"),
        )
        w.begin(120)
        if moment in ("revoked", "given-up"):
            # What is given up goes to another.
            w.assigned(dying)
            w.consumer(wait=False)
        w.until(lambda: not dying.running, f"the consumer was killed when {moment}", HEALED)
        w.until(lambda: (w.folder / "stumbled").exists(), "it was killed at its moment", 1)
        w.answers_lost()
        if len(w.consumers) == 1:
            w.consumer(wait=False)

    row(f"kill -9 {told}", name=f"killed-when-{moment}")(harm)


killed("assigned", "when partitions were assigned")
killed("read", "when messages were read, before anything is done")
killed("found", "after the documents were read")
killed("to-be-asked", "before the API is asked")
killed("answered", "after the API answered, before the cache is written")
killed("cached", "after the cache is written, before the bulk")
killed("half-written", "between two requests of one bulk")
killed("written", "after the bulk, before its outcomes are known")
killed("worked", "after the work, before it is taken over")
killed("to-be-settled", "before the ledger counts")
killed("settled", "after the ledger has counted, before the commit")
killed("committed", "after the commit")
killed("revoked", "when a partition is to be given up")
killed("given-up", "after a partition was given up")
killed("index-made", "mode index: after an index was made", mode="index")
killed("created", "mode index: after the logs were indexed, before their vectors", mode="index")


# -- consumers


@row("kill -9 of one of two consumers at work")
def consumer_killed(w: TopicWorld) -> None:
    w.consumer(wait=False)
    w.consumer(wait=False)
    w.begin()
    w.under_way()
    w.consumers[0].kill()
    w.answers_lost()


@row("SIGSTOP of one of two past the session's time-out, with work in hand; then SIGCONT")
def consumer_stopped(w: TopicWorld) -> None:
    w.consumer()
    w.consumer()
    w.begin()
    w.under_way()
    frozen = w.consumers[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    time.sleep(SESSION + 3)
    w.answers_lost()
    os.kill(frozen.pid, signal.SIGCONT)
    w.begin(60)


@row("SIGSTOP of the only consumer past the session's time-out; then SIGCONT")
def only_consumer_stopped(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    os.kill(w.consumers[0].pid, signal.SIGSTOP)
    time.sleep(SESSION + 3)
    w.answers_lost()
    os.kill(w.consumers[0].pid, signal.SIGCONT)


@row("consumers join and leave every two seconds, some by kill -9")
def comings_and_goings(w: TopicWorld) -> None:
    w.consumer()
    w.begin(400, 30)
    for nth in range(5):
        new = w.consumer(wait=False)
        w.begun(new)
        time.sleep(2)
        old = w.consumers[nth]
        if nth % 2:
            old.kill()
            w.answers_lost()
        else:
            w.leave(old)


@row("SIGTERM in work, then another consumer: a deploy")
def deploy(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.leave(w.consumers[0])
    w.consumer()


variant(consumer_killed, "protocol `consumer`: kill -9 of one of two", "killed-848",
        protocol="consumer")  # fmt: skip
variant(consumer_stopped, "protocol `consumer`: SIGSTOP past the session's time-out",
        "stopped-848", protocol="consumer")  # fmt: skip
variant(comings_and_goings, "protocol `consumer`: consumers join and leave every two seconds",
        "comings-848", protocol="consumer")  # fmt: skip


# -- the broker and its topic


@row("the broker killed and started anew")
def broker_killed(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.stack.kafka.kill()
    time.sleep(3)
    w.stack.kafka.start()


@row("the broker away while a consumer is told to leave; then both start again")
def broker_away_at_the_end(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.stack.kafka.kill()
    try:
        w.leave(w.consumers[0])
    finally:
        w.stack.kafka.start()


@row("the broker hangs twice, for 2 s and for longer than a session")
def broker_slow(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    for seconds in (2, SESSION + 2):
        os.kill(w.stack.kafka.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(w.stack.kafka.pid, signal.SIGCONT)
        time.sleep(1)


@row("the topic deleted and made anew, empty, under way")
def topic_made_anew(w: TopicWorld) -> None:
    w.consumer()
    w.begin(120)
    w.traffic.finish()
    w.delete_topic()
    w.make_topic()
    w.begin(120)


@row("the topic deleted under way, and made again only five seconds later")
def topic_deleted(w: TopicWorld) -> None:
    w.consumer()
    w.begin(120)
    w.under_way()
    w.traffic.finish()
    w.delete_topic()
    time.sleep(5)
    w.make_topic()
    w.begin(60)


@row("the topic is made only when the consumer waits for it")
def topic_late(w: TopicWorld) -> None:
    w.topic.admin.delete_topics([w.topic_name])[w.topic_name].result(30)
    w.until(lambda: not w.topic.partitions(), "the topic is gone", 30)
    waiting = w.consumer(wait=False)
    w.begun(waiting)
    time.sleep(2)
    w.make_topic()
    w.begin(120)


@row("partitions added under way")
def partitions_added(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.add_partitions(3)
    w.begin()


@row("offsets reset to the earliest: all again")
def offsets_reset(w: TopicWorld) -> None:
    w.start()
    w.traffic.finish()
    w.until(lambda: not w.topic.lag(), "all is committed")
    w.leave(w.consumers[0])
    paid = w.api.seen["inputs"]
    w.reset_offsets()
    w.consumer()
    w.until(lambda: not w.topic.lag(), "all is committed again")
    if (now := w.api.seen["inputs"]) != paid:
        raise Stuck(f"{now - paid} inputs were paid again")


@row("retention removes messages that nobody has read")
def retention(w: TopicWorld) -> None:
    from confluent_kafka import TopicPartition

    w.start()
    w.traffic.finish()
    w.until(lambda: not w.topic.lag(), "all is committed")
    w.leave(w.consumers[0])
    w.begin(120)
    w.traffic.finish()
    w.topic.read()
    id, committed = w.topic.id(), w.topic.committed()
    removed = []
    for number, (_, end) in w.topic.ends().items():
        # The older half of what waits.
        upto = (committed[number] + end + 1) // 2
        removed.append(TopicPartition(w.topic_name, number, upto))
        w.truth.removed |= {(id, number, n) for n in range(committed[number], upto)}
    for answer in w.topic.admin.delete_records(removed).values():
        answer.result(30)
    w.consumer()


# -- servers behind


@row("Redis: FLUSHALL under way")
def redis_flushed(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.redis.flushall()
    forgotten(w)


def forgotten(w: TopicWorld) -> None:
    """Redis has just forgotten what it counted: what is not committed yet is counted from now on,
    but a batch that was counted and not committed is not counted again."""
    w.traffic.finish()
    w.until(lambda: not w.topic.lag(), "all is committed")
    id = w.topic.id()
    w.truth.counts_from = {(id, number): end for number, (_, end) in w.topic.ends().items()}
    redis_lost(w)
    w.begin(60)


@row("Redis: connections cut for 5 s")
def redis_cut(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("cut", 5)
    w.answers_lost()


@row("Redis hangs for 5 s")
def redis_hangs(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("hang", 5)
    w.answers_lost()


@row("OpenSearch: connections cut for 5 s")
def opensearch_cut(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.opensearch_proxy.set_for("cut", 5)


@row("OpenSearch hangs for 11 s")
def opensearch_hangs(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.opensearch_proxy.set_for("hang", 11)


@row("OpenSearch killed and started anew")
def opensearch_killed(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.stack.opensearch.kill()
    w.stack.opensearch.start()


@row("an index made read-only for 5 s")
def index_read_only(w: TopicWorld) -> None:
    w.begin()
    w.traffic.finish()
    w.search("PUT", f"/{SHOP}/_settings", {"index.blocks.write": True})
    w.consumer()
    time.sleep(5)
    w.search("PUT", f"/{SHOP}/_settings", {"index.blocks.write": None})


@row("the API refuses the key for 8 s")
def api_401(w: TopicWorld) -> None:
    w.start()
    w.under_way()
    w.api.set(api_key="sk-another")
    time.sleep(8)
    w.api.set(api_key=w.stack.environment()["OPENAI_API_KEY"])
    w.truth.cut_inputs += 4  # each look after a halt may probe with one input


@row("the API answers 429 to eight requests, with Retry-After: 1")
def api_429(w: TopicWorld) -> None:
    headers = {"retry-after": "1"}
    w.api.faults({"kind": "status", "status": 429, "after": 2, "times": 8, "headers": headers})
    w.start()
    w.under_way()


@row("the API slow, then too slow for the time-out")
def api_slow(w: TopicWorld) -> None:
    w.api.set(latency_ms=1500)
    w.api.faults({"kind": "hang", "after": 1, "times": 2, "seconds": 9})
    w.truth.cut_inputs += 2 * BATCH
    w.start()
    w.under_way()


@row("the API breaks connections and answers 503")
def api_broken(w: TopicWorld) -> None:
    w.api.faults(
        {"kind": "reset", "after": 2, "times": 2},
        {"kind": "status", "status": 503, "after": 4, "times": 4},
    )
    w.truth.cut_inputs += 2 * BATCH + 6
    w.start()
    w.under_way()


# -- documents


@row("every third document later than it is waited for")
def documents_late(w: TopicWorld) -> None:
    w.ships_after = lambda: w.random.choice((0.0, 0.0, PATIENCE + 5))
    w.start()
    w.traffic.finish()


@row("every third document never shipped")
def documents_never(w: TopicWorld) -> None:
    w.ships_after = lambda: w.random.choice((0.0, 0.0, None))
    w.start()
    w.traffic.finish()


@row("documents deleted, some before their vector, some after")
def documents_deleted(w: TopicWorld) -> None:
    # So slow that many have no vector when all are shipped.
    w.api.set(latency_ms=1000)
    w.consumer()
    keys = w.keys(w.begin())
    w.under_way()
    w.traffic.finish()
    for index, id in w.random.sample(keys, 40):
        w.search("DELETE", f"/{index}/_doc/{id}")
        w.truth.gone.add((index, id))


@row("documents that have another writer's vector when they come")
def documents_vectorized(w: TopicWorld) -> None:
    items = w.logs()
    items = [w.vectorized(one) if one.index and n % 3 == 0 else one for n, one in enumerate(items)]
    w.consumer()
    w.send(items)
    w.traffic.finish()


@row("another writer's vectors come to the same logs at the same moment")
def sibling_writes(w: TopicWorld) -> None:
    w.consumer()
    keys = w.keys(w.begin())
    w.under_way(BATCH)
    w.traffic.finish()
    for index, id in w.random.sample(keys, 60):
        vector = w._vector()
        body = {"doc": {"log_vector": vector, "ai_enrichment_method": "realtime"}}
        w.search("POST", f"/{index}/_update/{id}?retry_on_conflict=5", body)
        w.truth.theirs[index, id] = vector


@row("documents replaced by others with another text, some before their vector, some after")
def documents_changed(w: TopicWorld) -> None:
    # So slow that many have no vector when all are shipped.
    w.api.set(latency_ms=1000)
    w.consumer()
    keys = w.keys(w.begin())
    w.under_way()
    w.traffic.finish()
    for nth, key in enumerate(w.random.sample(keys, 40)):
        source = {**w.truth.sources[key], "message": f"another text, of log {nth}"}
        w.search("PUT", f"/{key[0]}/_doc/{key[1]}", source)
        w.truth.owe(key, source)
        w.truth.replaced.add(key)


@row("the backfill at the same logs at the same time")
def beside_the_backfill(w: TopicWorld) -> None:
    w.worker(wait=False)
    w.beat()
    w.consumer()
    w.begin(500, 60)
    w.traffic.finish()


# -- clocks


def logs_off(name: str, told: str, ahead: timedelta) -> None:
    def harm(w: TopicWorld) -> None:
        items = w.logs()
        then = datetime.now(UTC) + ahead
        items = [_at(one, then + timedelta(seconds=n / PER_SECOND)) for n, one in enumerate(items)]
        w.until_judged(w.indices({one.index for one in items if one.index}))
        w.consumer()
        w.send(items)
        w.traffic.finish()

    row(told, name=name)(harm)


def _at(item: Item, when: datetime) -> Item:
    """The same log of another time, in whatever index that means."""
    if not item.index:
        return item
    source = {**item.source, "timestamp": when.isoformat()}
    index = f"{source['safe_project_uuid']}_{when:%Y_%m}"
    return replace(item, index=index, source=source, value=json.dumps(source).encode())


logs_off("logs-ahead", "logs whose clock is an hour ahead", timedelta(hours=1))
logs_off("logs-behind", "logs whose clock is an hour behind", timedelta(hours=-1))


@row("the consumer's host has its clock an hour ahead; another's is right")
def host_ahead(w: TopicWorld) -> None:
    w.consumer(stumbling=True, CHAOS_CLOCK="3600")
    w.consumer()
    w.begin()
    w.traffic.finish()


# -- mode index


@row("mode index: nothing")
def index_calm(w: TopicWorld) -> None:
    w.mode = "index"
    w.search("DELETE", f"/{SHOP},{BANK}")
    w.start()
    w.traffic.finish()


variant(consumer_killed, "mode index: kill -9 of one of two", "index-killed", mode="index")
variant(comings_and_goings, "mode index: consumers join and leave", "index-comings", mode="index")
variant(offsets_reset, "mode index: offsets reset to the earliest", "index-reset", mode="index")
variant(redis_flushed, "mode index: Redis forgets all", "index-redis-flushed", mode="index")
variant(opensearch_cut, "mode index: OpenSearch away for 5 s", "index-opensearch-cut", mode="index")
