"""Every documented way in, started from an environment that holds the image's lock and no more,
for one of them the wheel besides.

What only the developers' environment has would never be missed otherwise. The environment is made
by the Dockerfile's own lines, once for each lock, and kept in `.dev`. What needs root (the image's
user) and Docker itself are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from dev.services import Services, free_ports
from tests.conftest import ROOT, Search, wait_for

INDEX = "shop_web_2026_11"
LOGS = 30
#: Where the Dockerfile and deploy/ put things.
IMAGE_VENV, IMAGE_CODE = "/opt/venv", "/app"
UNIT_HOME = "/opt/enrich"


@dataclass(frozen=True, kw_only=True)
class WayIn:
    """How a document says that the programs are started."""

    #: worker, beat and flower → words.
    programs: Mapping[str, list[str]]
    #: The words before `check` and the other commands.
    command_line: list[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


#: Programs that not everybody runs; tests of their own start them.
OTHERS = ("consumer", "api")


def shell(script: str, cwd: Path, **environment: str) -> None:
    """Run a line of the Dockerfile, with the interpreter of these tests for its base image's."""
    environment.setdefault("PATH", f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=cwd,
        env={"HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="session")
def venv() -> Path:
    """A virtual environment made by the Dockerfile's first stage."""
    (script,) = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    (name,) = re.findall(r"-r (\S+\.lock)", script)
    lock = (ROOT / name).read_bytes()
    digest = hashlib.sha256(lock + script.encode() + sys.version.encode()).hexdigest()[:12]
    place = ROOT / ".dev" / f"installed-{digest}"
    if not (place / "complete").exists():
        for former in place.parent.glob("installed-*"):
            shutil.rmtree(former)
        place.mkdir(parents=True)
        shutil.copy(ROOT / name, place)
        # The packages are the same from a cache, which a layer of an image has no use for.
        shell(script.replace(IMAGE_VENV, str(place / "venv")).replace("--no-cache-dir ", ""), place)
        (place / "complete").touch()
    return place / "venv"


@pytest.fixture(scope="session")
def image(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> WayIn:
    """The Dockerfile's second stage, in a folder."""
    root = tmp_path_factory.mktemp("image")
    code, home = root / "app", root / "home"
    for folder in (code, home):
        folder.mkdir()
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    environment: dict[str, str] = {}

    def placed(text: str) -> str:
        return text.replace(IMAGE_VENV, str(venv)).replace(IMAGE_CODE, str(code))

    def copy(*words: str) -> None:
        *sources, target = words
        for source in sources:
            # What .dockerignore keeps from the engine cannot be copied.
            assert source in sent
            if (ROOT / source).is_dir():
                bytecode = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, Path(placed(target)), ignore=bytecode)
            else:
                shutil.copy(ROOT / source, Path(placed(target)) / source)

    command = ""
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest and IMAGE_CODE in rest:
            copy(*rest.split())
        elif name == "ENV":
            pairs = (pair.partition("=") for pair in shlex.split(rest))
            environment |= {key: placed(value) for key, _, value in pairs}
            environment["PATH"] = f"{venv}/bin:/usr/bin:/bin"
        elif name == "RUN" and IMAGE_CODE in rest:
            shell(placed(rest), home, **environment)
        elif name == "CMD":
            command = rest
    # docker-compose.yml gives the other two the Procfile's commands, as a unit test holds.
    programs = {**procfile(), "worker": json.loads(command)}
    return WayIn(
        programs=programs,
        command_line=["python", "-m", "enrich"],
        folder=home,
        environment=environment,
    )


@pytest.fixture(scope="session")
def systemd(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> WayIn:
    """The units' ExecStart and Environment, with the checkout where they expect it."""

    def placed(text: str) -> str:
        return text.replace(f"{UNIT_HOME}/.venv", str(venv)).replace(UNIT_HOME, str(ROOT))

    programs, environment = {}, {}
    for name in procfile():
        unit = ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string((ROOT / "deploy" / "systemd" / f"enrich-{name}.service").read_text())
        programs[name] = shlex.split(placed(unit["Service"]["ExecStart"]))
        key, _, value = placed(unit["Service"]["Environment"]).partition("=")
        environment[key] = value
    (check,) = re.findall(r"^sudo -u enrich env (.* enrich) check$", deploy_readme(), re.M)
    words = shlex.split(placed(check))
    return WayIn(
        programs=programs,
        command_line=["env", *words],
        folder=tmp_path_factory.mktemp("systemd"),
        environment={**environment, "PATH": "/usr/bin:/bin"},
    )


@pytest.fixture(scope="session")
def checkout(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> WayIn:
    """The README's lines, in a copy of what git has."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "enrich", "tasks", "celeryconfig.py", "flowerconfig.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(venv)
    readme = (ROOT / "README.md").read_text()
    assert "python3 -m venv .venv && .venv/bin/pip install -r requirements.lock" in readme
    (check,) = re.findall(r"^(\.venv/bin/python -m enrich) check$", readme, re.M)
    celery = re.findall(r"^(\.venv/bin/celery -A enrich (\w+))$", readme, re.M)
    return WayIn(
        programs={name: shlex.split(line) for line, name in celery},
        command_line=shlex.split(check),
        folder=folder,
        environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": ""},
    )


@pytest.fixture(scope="session")
def wheel(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> WayIn:
    """The README's lines for an installation from a wheel, started in an empty folder."""
    readme = (ROOT / "README.md").read_text()
    (lines,) = re.findall(r"^## Installed\n.*?^```\n(.*?)^```$", readme, re.M | re.S)
    assert "pip wheel --no-deps -w dist ." in lines
    assert "bin/pip install --no-deps dist/enrich_logs-*.whl" in lines
    place = tmp_path_factory.mktemp("wheel")
    environment = another(venv, place / "venv")
    # Without a network: what builds it is here, and what it needs is there already.
    shell(
        f"{sys.executable} -m pip wheel --no-deps --no-build-isolation -w dist {ROOT}\n"
        f"{environment}/bin/python -m pip install --no-deps --no-index dist/*.whl",
        place,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    (check,) = re.findall(r"^(/opt/enrich/bin/enrich) check$", lines, re.M)
    celery = re.findall(r"^(/opt/enrich/bin/celery -A enrich (\w+))$", lines, re.M)

    def placed(text: str) -> str:
        return text.replace(UNIT_HOME, str(environment))

    folder = place / "empty"
    folder.mkdir()
    return WayIn(
        programs={name: shlex.split(placed(line)) for line, name in celery},
        command_line=[placed(check)],
        folder=folder,
        environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": ""},
    )


def another(venv: Path, place: Path) -> Path:
    """A virtual environment with the same packages, in which others may be installed."""
    shutil.copytree(venv, place, symlinks=True, copy_function=os.link)
    for script in (place / "bin").iterdir():
        text = script.read_bytes()
        if not script.is_symlink() and str(venv).encode() in text:
            script.unlink()
            script.write_bytes(text.replace(str(venv).encode(), str(place).encode()))
            script.chmod(0o755)
    return place


def procfile() -> dict[str, list[str]]:
    """Of those that everybody runs."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    commands = (line.partition(":") for line in lines)
    return {name: shlex.split(rest) for name, _, rest in commands if name not in OTHERS}


def deploy_readme() -> str:
    return (ROOT / "deploy" / "README.md").read_text()


@pytest.fixture(
    params=[
        pytest.param("image", marks=pytest.mark.apart),
        pytest.param("systemd", marks=pytest.mark.apart),
        "checkout",
        "wheel",
    ]
)
def way(request: pytest.FixtureRequest) -> WayIn:
    found: WayIn = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def indexed(clean: Services, search: Search) -> Iterator[Services]:
    search.create(INDEX)
    search.index(
        INDEX,
        [
            {"level": "ERROR", "message": f"disk {n} failed", "timestamp": "2026-11-20T10:00:00Z"}
            for n in range(LOGS)
        ],
    )
    yield clean


def test_each_program_runs_from_the_lock_alone(
    way: WayIn, indexed: Services, search: Search, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    environment = {
        **way.environment,
        "VIRTUAL_ENV": "",
        "ENRICH_REDIS_PREFIX": f"{way.folder.name}:",
        "FLOWER_PORT": str(port),
    }
    assert set(way.programs) == {"worker", "beat", "flower"}
    (alive := tmp_path / "alive").mkdir()
    started = {
        name: indexed.spawn(
            f"{way.folder.name}-{name}",
            # Found by the way's own PATH, not by that of these tests.
            [str(program(way, words[0])), *words[1:]],
            env={**environment, "ENRICH_ALIVE_FILE": str(alive / name)},
            cwd=way.folder,
        )
        for name, words in way.programs.items()
    }
    try:
        vectors = {"exists": {"field": "log_vector"}}
        wait_for(lambda: search.count(INDEX, vectors) == LOGS, started["worker"])
        url = f"http://127.0.0.1:{port}/enrichment"
        wait_for(lambda: page_is_there(url), started["flower"])
        checked = indexed.spawn(
            f"{way.folder.name}-check",
            [str(program(way, way.command_line[0])), *way.command_line[1:], "check"],
            env=environment,
            cwd=way.folder,
        )
        wait_for(lambda: not checked.running)
        assert checked.returncode == 0, checked.log.read_text()
        assert all(service.running for service in started.values())
        # What the probes of a container look at.
        assert {path.name for path in alive.iterdir()} == {"worker", "beat"}
    finally:
        for service in started.values():
            service.kill()


def program(way: WayIn, name: str) -> Path:
    """The file that a command's first word names."""
    if "/" in name:
        return way.folder / name
    found = shutil.which(name, path=way.environment["PATH"])
    assert found is not None, name
    return Path(found)


def page_is_there(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=30).status_code == 200
    except httpx2.TransportError:
        return False
