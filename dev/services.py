"""Starts and ends OpenSearch, a Redis-compatible server, the embeddings server and, where it is
wanted, Kafka as one stack.

The demo, the integration tests and the benchmarks share it, so that all of them speak to real
services on free loopback ports. Whatever happens to the process that uses it, an exception, a
signal or a kill -9, no process of the stack stays behind.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from dev.java_packages import JavaUnavailable, class_path
from dev.kafka_broker import KAFKA, SETTINGS_VARIABLE, cluster_id
from dev.opensearch_releases import OPENSEARCH_3, RELEASES, Release
from dev.opensearch_security import ADMIN, AUTHORITY, write_node_certificates
from dev.reaper import STACK_VARIABLE
from dev.redis_server import RedisUnavailable, server_argv
from dev.service import Service, ServiceFailed

CHECKOUT = Path(__file__).resolve().parent.parent

Say = Callable[[str], None]

_LOCK = "stack.lock"


class Services:
    """The stack in `folder`: data in `data/<service>`, logs in `logs/<service>.log`.

    Use it as a context manager, or call `start` and `stop`. Its processes end with the process
    that started it in any case.
    """

    def __init__(
        self,
        folder: Path,
        *,
        opensearch: bool = True,
        redis: bool = True,
        embeddings: bool = True,
        kafka: bool = False,
        say: Say = print,
        heap: str = "512m",
        opensearch_settings: Mapping[str, str] | None = None,
        kafka_settings: Mapping[str, str] | None = None,
        release: Release = OPENSEARCH_3,
        fresh: bool = False,
    ) -> None:
        """
        Args:
            heap: of OpenSearch, in Java's words.
            release: which OpenSearch; one with the security plugin answers over TLS only.
            fresh: empty the folder first.
        """
        self.folder = Path(folder).resolve()
        self._fresh = fresh
        self._wanted = {
            "redis": redis,
            "embeddings": embeddings,
            "kafka": kafka,
            "opensearch": opensearch,
        }
        self._say = say
        self._heap = heap
        self._opensearch_settings = dict(opensearch_settings or {})
        self._kafka_settings = dict(kafka_settings or {})
        self._cluster_id = ""
        self._release = release
        self._api_key = f"sk-dev-{secrets.token_hex(16)}"
        #: Lets `dev.api_control.ApiControl` steer the embeddings server.
        self.control_key = secrets.token_hex(16)
        #: Marks every process of this stack, so that none can be mistaken for another's.
        self._token = secrets.token_hex(8)
        self._services: dict[str, Service] = {}
        self._spawned: list[Service] = []
        self._lock: int | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        self._former_sigterm: signal.Handlers | Callable[..., object] | int | None = None

    @property
    def opensearch(self) -> Service:
        """The OpenSearch node."""
        return self._service("opensearch")

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed OpenSearch's, where it answers over TLS."""
        return self._certificates / AUTHORITY

    @property
    def _certificates(self) -> Path:
        return self.folder / "tls"

    @property
    def redis(self) -> Service:
        """The Redis-compatible server."""
        return self._service("redis")

    @property
    def embeddings(self) -> Service:
        """The embeddings server; its `url` is without `/v1`, so that `/control` can be added."""
        return self._service("embeddings")

    @property
    def kafka(self) -> Service:
        """The Kafka broker; its `url` is what KAFKA_BOOTSTRAP_SERVERS takes."""
        return self._service("kafka")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything at once and return when all of it answers.

        Raises ServiceFailed, after ending what had started.
        """
        self._claim_folder()
        try:
            self._start_reaper()
            self._catch_sigterm()
            self._start_services()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything, last started first; may be called again."""
        try:
            for service in [*reversed(self._spawned), *reversed(self._services.values())]:
                service.stop()
        finally:
            # Also when stopping was interrupted: the reaper ends what is left.
            self._end_reaper()
            self._release_folder()
            self._restore_sigterm()
            self._spawned = []

    def environment(self) -> dict[str, str]:
        """The variables that point the pipeline at this stack."""
        variables: dict[str, str] = {}
        if "opensearch" in self._services:
            variables |= {
                "OPENSEARCH_HOST": "127.0.0.1",
                "OPENSEARCH_PORT": str(self.opensearch.port),
                "OPENSEARCH_USE_SSL": str(self._release.secured).lower(),
                "OPENSEARCH_USER": ADMIN[0],
                "OPENSEARCH_PASSWORD": ADMIN[1],
            }
            if self._release.secured:
                variables["OPENSEARCH_CA_CERTS"] = str(self.authority)
        if "redis" in self._services:
            variables["REDIS_URL"] = self.redis.url
        if "embeddings" in self._services:
            variables["OPENAI_BASE_URL"] = f"{self.embeddings.url}/v1"
            variables["OPENAI_API_KEY"] = self._api_key
        if "kafka" in self._services:
            variables["KAFKA_BOOTSTRAP_SERVERS"] = self.kafka.url
        return variables

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Service:
        """Start any other process of the stack, such as a worker; returns without waiting.

        It gets this process's environment, then `environment()`, then `env`; and the stack's folder
        to work in, since in the checkout it would read a `.env` that is for other servers.
        """
        if self._reaper is None:
            raise RuntimeError("the stack has not been started")
        service = self._make(
            name,
            argv=argv,
            env={**self.environment(), **(env or {})},
            cwd=cwd or self.folder,
            ready=None,
        )
        # Known to `stop` before it runs, so that an interrupt in between leaves nothing.
        self._spawned.append(service)
        service.launch()
        return service

    def _service(self, name: str) -> Service:
        try:
            return self._services[name]
        except KeyError:
            raise RuntimeError(f"{name} is not part of this stack, or not started") from None

    def _start_services(self) -> None:
        build = {
            "redis": self._build_redis,
            "embeddings": self._build_embeddings,
            "kafka": self._build_kafka,
            "opensearch": self._build_opensearch,
        }
        names = [name for name, wanted in self._wanted.items() if wanted]
        try:
            for name in names:
                # Here rather than in the node, so that a person sees the download's progress.
                if name == "kafka":
                    class_path(self._say, bundle=KAFKA)
                if name == "opensearch":
                    class_path(self._say, bundle=self._release)
                    if self._release.secured:
                        write_node_certificates(self._certificates)
                self._services[name] = build[name]()
                self._services[name].launch()
        except (JavaUnavailable, RedisUnavailable) as error:
            raise ServiceFailed(str(error)) from error
        for name in names:
            self._wait(name, build[name])

    def _wait(self, name: str, build: Callable[[], Service]) -> None:
        """Wait for a service; where another process was faster with its port, take another."""
        for attempts_left in (2, 1, 0):
            try:
                self._services[name].wait_ready()
                return
            except ServiceFailed:
                if not attempts_left or not self._services[name].collided():
                    raise
            self._services[name].stop()
            self._services[name] = build()
            self._services[name].launch()

    def _build_opensearch(self) -> Service:
        port, transport_port = free_ports(2)
        settings = {**self._opensearch_settings, "node.attr.stack": self._token}
        return self._make(
            "opensearch",
            argv=[
                *(sys.executable, "-m", "dev.opensearch_node"),
                *("--port", str(port), "--transport-port", str(transport_port)),
                *("--data", str(self.folder / "data" / "opensearch"), "--heap", self._heap),
                *("--release", next(k for k, r in RELEASES.items() if r is self._release)),
                *("--certificates", str(self._certificates)),
                *(f"--setting={key}={value}" for key, value in settings.items()),
            ],
            # Without a bound glibc gives each of the JVM's threads an arena of its own.
            env={"PYTHONPATH": _python_path(), "MALLOC_ARENA_MAX": "2"},
            url=f"{'https' if self._release.secured else 'http'}://127.0.0.1:{port}",
            port=port,
            ready=self._opensearch_ready,
            patience=120.0,
        )

    def _build_redis(self) -> Service:
        (port,) = free_ports(1)
        data = self.folder / "data" / "redis"
        data.mkdir(parents=True, exist_ok=True)
        return self._make(
            "redis",
            argv=server_argv(port=port, folder=data),
            url=f"redis://127.0.0.1:{port}/0",
            port=port,
            ready=_redis_ready,
        )

    def _build_embeddings(self) -> Service:
        (port,) = free_ports(1)
        return self._make(
            "embeddings",
            argv=[sys.executable, "-m", "dev.embeddings_server", "--port", str(port)],
            # In the environment, because anyone can read the arguments of a process. One thread
            # for its small products: more would wait for each other in busy loops, and take the
            # processor from what runs beside it.
            env={
                "PYTHONPATH": _python_path(),
                "EMBEDDINGS_API_KEY": self._api_key,
                "EMBEDDINGS_CONTROL_KEY": self.control_key,
                "OPENBLAS_NUM_THREADS": "1",
            },
            url=f"http://127.0.0.1:{port}",
            port=port,
            ready=self._embeddings_ready,
        )

    def _build_kafka(self) -> Service:
        port, controller_port = free_ports(2)
        data = self.folder / "data" / "kafka"
        self._cluster_id = cluster_id(data)
        return self._make(
            "kafka",
            argv=[
                *(sys.executable, "-m", "dev.kafka_broker"),
                *("--port", str(port), "--controller-port", str(controller_port)),
                *("--data", str(data), "--cluster-id", self._cluster_id),
            ],
            env={
                "PYTHONPATH": _python_path(),
                "MALLOC_ARENA_MAX": "2",
                SETTINGS_VARIABLE: json.dumps(self._kafka_settings),
            },
            url=f"127.0.0.1:{port}",
            port=port,
            ready=self._kafka_ready,
            patience=120.0,
        )

    def _make(
        self,
        name: str,
        *,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        url: str = "",
        port: int = 0,
        ready: Callable[[Service], bool] | None,
        patience: float = 30.0,
    ) -> Service:
        return Service(
            name,
            argv=argv,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **(env or {}),
                STACK_VARIABLE: self._token,
            },
            cwd=cwd,
            log=self.folder / "logs" / f"{name}.log",
            register=self._register,
            url=url,
            port=port,
            ready=ready,
            patience=patience,
        )

    def _opensearch_ready(self, service: Service) -> bool:
        headers = {}
        context = None
        if self._release.secured:
            login = base64.b64encode(":".join(ADMIN).encode()).decode()
            headers = {"Authorization": f"Basic {login}"}
            context = ssl.create_default_context(cafile=str(self.authority))
        status, _ = _get(service.port, "/_cluster/health", headers, context)
        if status != 200:
            return False
        status, body = _get(service.port, "/_nodes/_local/settings", headers, context)
        nodes = json.loads(body)["nodes"].values() if status == 200 else ()
        # Another stack's node may have been faster with the port.
        return any(node["attributes"].get("stack") == self._token for node in nodes)

    def _kafka_ready(self, service: Service) -> bool:
        # Loads a library; most stacks have no Kafka.
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": service.url, "log_level": 0})
        try:
            # Another stack's broker may have been faster with the port.
            return bool(client.list_topics(timeout=1.0).cluster_id == self._cluster_id)
        except KafkaException:
            return False

    def _embeddings_ready(self, service: Service) -> bool:
        # The key is this stack's own, hence another stack's server refuses it.
        status, _ = _get(service.port, "/v1/models", {"Authorization": f"Bearer {self._api_key}"})
        return status == 200

    def _claim_folder(self) -> None:
        if self._lock is not None:
            raise RuntimeError("the stack is started already")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ServiceFailed(
                f"The folder {self.folder} is in use by another stack (process {holder}): stop "
                "that one first or choose another folder."
            ) from error
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        if self._fresh:
            # Not before: what lies here may be another stack's.
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != _LOCK:
                    entry.unlink()

    def _release_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start_reaper(self) -> None:
        assert self._lock is not None
        self._reaper = subprocess.Popen(
            [sys.executable, "-m", "dev.reaper", self._token],
            env={**os.environ, "PYTHONPATH": _python_path()},
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # It shares the lock on the folder, which therefore stays taken after a kill -9 of
            # this process until nothing of the stack lives any more.
            pass_fds=(self._lock,),
        )

    def _register(self, line: str) -> None:
        if self._reaper is None or self._reaper.stdin is None or self._reaper.stdin.closed:
            return
        try:
            self._reaper.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            # Somebody ended the reaper. The stack goes on, and ends in order when asked to.
            return

    def _end_reaper(self) -> None:
        if self._reaper is None:
            return
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        self._reaper = None

    def _catch_sigterm(self) -> None:
        """Turn SIGTERM into an exception, so that `with` ends the stack in order."""
        # Only where nothing else has been arranged; signals can be set in the main thread alone.
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            self._former_sigterm = signal.signal(signal.SIGTERM, _exit)

    def _restore_sigterm(self) -> None:
        if self._former_sigterm is not None:
            signal.signal(signal.SIGTERM, self._former_sigterm)
            self._former_sigterm = None


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now.

    They lie below the range from which the system serves outgoing connections: one taken from
    there could be given away while a service is down for a restart.
    """
    ports: list[int] = []
    candidates = random.SystemRandom()
    for _ in range(2000):
        if len(ports) == count:
            return ports
        port = candidates.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    raise ServiceFailed("No free port was found between 20,000 and 32,000 on 127.0.0.1.")


def _python_path() -> str:
    former = os.environ.get("PYTHONPATH")
    return f"{CHECKOUT}{os.pathsep}{former}" if former else str(CHECKOUT)


def _get(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    )
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _redis_ready(service: Service) -> bool:
    with socket.create_connection(("127.0.0.1", service.port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        # Anything else than PONG means that it is still reading its data.
        if not connection.recv(100).startswith(b"+PONG"):
            return False
        connection.sendall(b"INFO server\r\n")
        answer = b""
        while b"uptime_in_seconds" not in answer:
            received = connection.recv(65536)
            if not received:
                return False
            answer += received
    # Another stack's server may have been faster with the port.
    return f"process_id:{service.pid}\r".encode() in answer
