"""One OpenSearch node with the k-NN plugin, run in the foreground inside this Python process.

The demo, the integration tests and the benchmarks start it as `python -m dev.opensearch_node`;
production uses the image in docker-compose.yml. Without the security plugin any user and password
are accepted, and with it the administrator's password is known, which is why the node listens on
127.0.0.1 and offers no way to change that.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from dev.java_packages import JavaUnavailable, class_path, find_runtime
from dev.opensearch_releases import RELEASES, Release
from dev.opensearch_security import security_options, security_settings


class NodeFailed(RuntimeError):
    """OpenSearch refused to start; the message is the innermost cause."""


def main(argv: list[str] | None = None) -> int:
    """Run a node until SIGTERM or SIGINT; the exit code is 0 after a clean end."""
    parser = _parser()
    options = parser.parse_args(argv)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    release = RELEASES[options.release]
    if release.secured and options.certificates is None:
        parser.error(f"--release {options.release} needs --certificates")
    try:
        jars = class_path(say=lambda line: print(line, flush=True), bundle=release)
        runtime = find_runtime()
    except JavaUnavailable as error:
        print(error, file=sys.stderr)
        return 1

    settings = {
        "action.auto_create_index": options.auto_create_index,
        "cluster.routing.allocation.disk.threshold_enabled": options.disk_threshold,
        # Otherwise it looks for others for three seconds.
        "discovery.type": "single-node",
        **(security_settings(options.certificates) if release.secured else {}),
        **dict(options.setting),
        "http.port": str(options.port),
        "transport.port": str(options.transport_port),
        "network.host": "127.0.0.1",
    }
    try:
        runner = start_node(
            jars=jars,
            libjvm=runtime.libjvm,
            jvm_options=[
                *runtime.options,
                *(security_options(release) if release.secured else ()),
                f"-Xms{options.heap}",
                f"-Xmx{options.heap}",
                # Signals belong to Python.
                "-Xrs",
                # Otherwise every JVM leaves a file in the system's temporary folder.
                "-XX:-UsePerfData",
            ],
            settings=settings,
            release=release,
            data=options.data,
            cluster=options.cluster,
        )
    except NodeFailed as error:
        print(error, flush=True)
        os._exit(1)
    scheme = "https" if release.secured else "http"
    print(f"OpenSearch answers on {scheme}://127.0.0.1:{options.port}", flush=True)
    stop.wait()
    runner.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # The JVM cannot be unloaded, and its remaining threads would hold the process for seconds.
    os._exit(0)


def start_node(
    *,
    jars: list[Path],
    libjvm: Path,
    jvm_options: list[str],
    settings: dict[str, str],
    release: Release,
    data: Path,
    cluster: str,
) -> Any:
    """Load the JVM into this process (possible once) and start the node; returns its runner."""
    import jpype

    data.mkdir(parents=True, exist_ok=True)
    jpype.startJVM(
        str(libjvm),
        "--enable-native-access=ALL-UNNAMED",
        *jvm_options,
        classpath=[str(jar) for jar in jars],
    )

    @jpype.JImplements("org.codelibs.opensearch.runner.OpenSearchRunner$Builder")
    class Builder:
        @jpype.JOverride  # type: ignore[untyped-decorator]
        def build(self, number: int, builder: Any) -> None:
            for key, value in settings.items():
                builder.put(key, value)
            builder.putList("node.roles", "cluster_manager", "data", "ingest")

    runner = jpype.JClass("org.codelibs.opensearch.runner.OpenSearchRunner")()
    runner.onBuild(Builder())
    arguments = {
        "-numOfNode": "1",
        "-clusterName": cluster,
        "-basePath": str(data.resolve()),
        "-moduleTypes": ",".join(release.modules),
        "-pluginTypes": ",".join(release.plugin_classes),
    }
    try:
        runner.build([part for pair in arguments.items() for part in pair])
    except jpype.JException as error:
        print(error.stacktrace(), flush=True)
        cause = error
        while cause.getCause() is not None:
            cause = cause.getCause()
        raise NodeFailed(f"OpenSearch could not start: {cause.toString()}") from None
    return runner


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.opensearch_node", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="HTTP port on 127.0.0.1")
    parser.add_argument("--transport-port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the index data")
    parser.add_argument("--release", choices=sorted(RELEASES), default="3")
    parser.add_argument(
        "--certificates", type=Path, help="folder of the certificates, where the release needs any"
    )
    parser.add_argument("--heap", default="512m", help="Java heap, such as 512m or 1g")
    parser.add_argument("--cluster", default="enrich-dev", help="name of the cluster")
    parser.add_argument("--auto-create-index", default="true", metavar="true|false|PATTERNS")
    parser.add_argument("--disk-threshold", choices=("true", "false"), default="false")
    parser.add_argument(
        "--setting",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other OpenSearch setting; may be repeated",
    )
    return parser


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
