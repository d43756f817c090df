"""Line 5, second half: two workers on two hosts against one with twice the processes.

The hosts are network namespaces, each with a name of its own and a cable to this one; nothing
leaves the machine. It takes root and `ip`; where they are missing, the line says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.corpus import make_corpus
from benchmarks.lines.scale import BATCH, LATENCY_MS
from benchmarks.rounds import Figure, at_least, median, not_measured, stated
from benchmarks.stage import Stage
from dev.tcp_proxy import TcpProxy

_NAME = "two hosts, of one with twice the processes"
_PROCESSES = 4
_LOGS = 8_000


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace and where it sees the services."""

    name: str
    #: This machine's end of the cable: its address and its name.
    gateway: str
    device: str


def measure(stage: Stage) -> list[Figure]:
    try:
        with hosts(2) as (one, two), _services_for(stage, [one, two]) as env:
            single = _rate(stage, env, [one], 2 * _PROCESSES)
            double = _rate(stage, env, [one, two], _PROCESSES)
    except HostsUnavailable as error:
        return [not_measured("hosts", _NAME, str(error))]
    stage.data["hosts"] = {"single": single, "double": double, "latency_ms": LATENCY_MS}
    return [
        stated("hosts", f"one host, {2 * _PROCESSES} processes", single, "/s"),
        stated("hosts", f"two hosts, {_PROCESSES} processes each", double, "/s"),
        at_least("hosts", _NAME, double / single, 0.95),
    ]


def _rate(
    stage: Stage, env: dict[str, dict[str, str]], on: Sequence[Host], processes: int
) -> float:
    corpus = make_corpus(stage.options.size or _LOGS, distinct_share=1.0)

    def into(program: str) -> list[str]:
        # Beat and Flower stay here: which host they are on makes no difference to the work.
        if not program.startswith("worker"):
            return []
        host = on[int(program.removeprefix("worker") or 0)]
        variables = [f"{name}={value}" for name, value in env[host.name].items()]
        # Every part replaces the one before it, so that the process keeps its number.
        return [
            *("ip", "netns", "exec", host.name, "unshare", "--uts", "sh", "-c"),
            'hostname "$0" && exec "$@"',
            host.name,
            *("env", *variables),
        ]

    with stage.product(
        env={"ENRICH_BATCH_SIZE": str(BATCH)},
        concurrency=processes,
        workers=len(on),
        prefix=into,
    ) as product:
        stage.warm(product, 1_600)
        return median(
            [
                stage.drain(product, corpus, latency_ms=LATENCY_MS).rate
                for _ in range(stage.rounds(1, 3))
            ]
        )


@contextmanager
def _services_for(stage: Stage, on: Sequence[Host]) -> Iterator[dict[str, dict[str, str]]]:
    """Forward the stack's ports from each cable; the variables that name them, by host."""
    stack = stage.stack
    with ExitStack() as exits:
        env = {}
        for host in on:
            ports = {
                name: exits.enter_context(
                    TcpProxy(service.port, address=host.gateway, device=host.device)
                ).port
                for name, service in (
                    ("opensearch", stack.opensearch),
                    ("redis", stack.redis),
                    ("embeddings", stack.embeddings),
                )
            }
            env[host.name] = {
                "OPENSEARCH_HOST": host.gateway,
                "OPENSEARCH_PORT": str(ports["opensearch"]),
                "REDIS_URL": f"redis://{host.gateway}:{ports['redis']}/0",
                "OPENAI_BASE_URL": f"http://{host.gateway}:{ports['embeddings']}/v1",
            }
        yield env


class HostsUnavailable(RuntimeError):
    """This machine cannot make network namespaces; the text says why."""


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make namespaces, and take them away again."""
    if os.geteuid() != 0:
        raise HostsUnavailable("network namespaces need root")
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        raise HostsUnavailable("network namespaces need the commands ip and unshare")
    with ExitStack() as exits:
        made = []
        for n in range(count):
            made.append(_host(exits, n))
        yield made


def _host(exits: ExitStack, n: int) -> Host:
    name, here, there = f"enrich-bench-{n}", f"ebench{n}", f"ebench{n}p"
    gateway, address = f"10.213.{n}.1", f"10.213.{n}.2"
    # Of a run that was killed.
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    _ip("netns", "add", name)
    exits.callback(_ip, "netns", "del", name)
    _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
    _ip("addr", "add", f"{gateway}/30", "dev", here)
    _ip("link", "set", here, "up")
    _ip("-n", name, "addr", "add", f"{address}/30", "dev", there)
    _ip("-n", name, "link", "set", there, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return Host(name, gateway, here)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["no word"]
        raise HostsUnavailable(f"`ip {' '.join(words)}` failed: {told[-1]}")
