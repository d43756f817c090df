"""A real Kafka: one KRaft node on loopback, from packages of the public Java registry.

`python -m dev.kafka_broker --port P --controller-port Q --data DIR` becomes the node's process. Its
data outlives a kill -9: the next start with the same folder goes on where the last one ended.
Production uses the image in docker-compose.yml.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.java_packages import class_path, find_runtime
from dev.opensearch_releases import Package


@dataclass(frozen=True)
class KafkaRelease:
    """What the node is made of; see `dev.java_packages.Bundle`."""

    version: str
    companions: tuple[Package, ...] = ()
    plugins: tuple[Package, ...] = ()

    @property
    def key(self) -> str:
        return f"kafka-{self.version}"

    @property
    def title(self) -> str:
        return f"Kafka {self.version} (about 45 MB)"

    @property
    def runner(self) -> Package:
        return Package("org.apache.kafka", "kafka_2.13", self.version)


KAFKA = KafkaRelease("4.4.0")

#: More settings, as a JSON object.
SETTINGS_VARIABLE = "KAFKA_BROKER_SETTINGS"

#: Of one node; and quick to notice that a member of a group is gone, as tests want it.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.retention.check.interval.ms": "1000",
    "log.segment.delete.delay.ms": "1000",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "auto.create.topics.enable": "false",
    "message.max.bytes": "20000000",
    "replica.fetch.max.bytes": "20000000",
}

#: Options of a JVM that ends at once: no time is spent on making its code fast.
_SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def cluster_id(data: Path) -> str:
    """That of the data, or a new one: 22 characters of URL-safe Base64, none that a command would
    take for an option."""
    properties = data / "log" / "meta.properties"
    if properties.exists():
        lines = properties.read_text().splitlines()
        return next(line[11:] for line in lines if line.startswith("cluster.id="))
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]).startswith("-"):
        pass
    return name


def server_properties(
    *, port: int, controller_port: int, data: Path, more: Mapping[str, str]
) -> dict[str, str]:
    """The node's settings, where it listens and what `more` says included; `listeners` of it are
    added."""
    more = dict(more)
    others = more.pop("listeners", "")
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"
    return {
        **_SETTINGS,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listeners": f"{listeners},{others}" if others else listeners,
        "log.dirs": str(data / "log"),
        **more,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--controller-port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cluster-id", required=True)
    options = parser.parse_args(argv)
    options.data.mkdir(parents=True, exist_ok=True)
    properties = options.data / "server.properties"
    settings = server_properties(
        port=options.port,
        controller_port=options.controller_port,
        data=options.data,
        # In the environment, because anyone can read the arguments of a process, and passwords may
        # be among them.
        more=json.loads(os.environ.get(SETTINGS_VARIABLE, "{}")),
    )
    properties.touch(mode=0o600)
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = str(find_runtime().home / "bin" / "java")
    jars = os.pathsep.join(map(str, class_path(bundle=KAFKA)))
    if not (options.data / "log" / "meta.properties").exists():
        command = ("format", "--standalone", "-t", options.cluster_id, "-c", str(properties))
        subprocess.run(
            [java, *_SHORT_LIVED, "-cp", jars, "kafka.tools.StorageTool", *command],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    sys.stdout.flush()
    os.execv(java, [java, "-Xms128m", "-Xmx256m", "-cp", jars, "kafka.Kafka", str(properties)])


if __name__ == "__main__":
    main()
