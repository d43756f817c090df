"""The files for running it: that they agree with the settings, with each other, and are no wider
open than they say. What can only be seen with Docker is left to `docker compose config`, which is
asked where it is installed.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from dev.redis_server import server_argv
from dev.services import free_ports
from enrich.realtime.consumer import GRACE_SECONDS
from enrich.settings import RUNS_INDEX, Settings, load_settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("worker", "beat", "flower", "consumer", "api")
MONITORING = ("metrics", "prometheus", "grafana")

#: What an installation runs.
SHIPPED = [
    *(ROOT / "enrich").rglob("*.py"),
    *(ROOT / "tasks").rglob("*.py"),
    *(ROOT / "celeryconfig.py", ROOT / "flowerconfig.py"),
]

#: Variables that are not settings of the pipeline: of Flower, and of docker-compose.yml.
FLOWER_VARIABLES = {
    *("FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_BASIC_AUTH", "FLOWER_READ_ONLY"),
    "FLOWER_URL_PREFIX",
}
COMPOSE_VARIABLES = {"OPENSEARCH_INITIAL_ADMIN_PASSWORD", "REDIS_PASSWORD"}
#: Of a profile: whoever does not start it needs none.
PROFILE_VARIABLES = {"GRAFANA_PASSWORD"}

#: The keys of the Compose Specification that docker-compose.yml has a use for.
TOP_KEYS = {"services", "volumes", "networks", "configs", "secrets", "name", "include"}
SERVICE_KEYS = {
    "build", "image", "command", "env_file", "environment", "user", "init", "read_only", "tmpfs",
    "volumes", "cap_drop", "security_opt", "restart", "depends_on", "logging", "stop_signal",
    "stop_grace_period", "healthcheck", "ports", "ulimits", "hostname", "networks", "profiles",
    "secrets", "configs", "entrypoint",
}  # fmt: skip
HEALTHCHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
DURATION = re.compile(r"^(\d+)s$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {
        name: command.strip()
        for name, _, command in (line.partition(":") for line in lines if line)
    }


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "deploy" / "systemd" / f"enrich-{name}.service").read_text())
    return parser


# -- .env.example


def example() -> dict[str, str]:
    """Variable → value, in lines that are commented out or not."""
    text = (ROOT / ".env.example").read_text()
    pairs: list[tuple[str, str]] = re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.M)
    assert len(dict(pairs)) == len(pairs), "a variable is there twice"
    return dict(pairs)


def test_example_has_every_setting_and_no_other() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    assert set(example()) == settings | FLOWER_VARIABLES | COMPOSE_VARIABLES | PROFILE_VARIABLES


def test_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    defaults = load_settings(openai_api_key="k")
    shown = "\n".join(f"{name}={value}" for name, value in example().items() if value)
    (tmp_path / ".env").write_text(shown)
    assert load_settings(openai_api_key="k") == defaults
    empty = {name.upper() for name, value in defaults if str(value) in ("", "()", "None")}
    assert {name for name in Settings.model_fields if not example()[name.upper()]} == {
        name.lower() for name in empty | {"OPENAI_API_KEY"}
    }


def test_example_asks_only_for_the_key() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["OPENAI_API_KEY="]


# -- one set of commands


@pytest.mark.parametrize("name", OURS)
def test_the_same_command_everywhere(name: str, services: dict[str, Any]) -> None:
    command = procfile()[name]
    assert services[name]["command"] == command
    program, *rest = shlex.split(unit(name)["Service"]["ExecStart"])
    assert [Path(program).name, *rest] == shlex.split(command)


def test_the_image_runs_the_worker() -> None:
    (command,) = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert shlex.join(json.loads(command)) == procfile()["worker"]


# -- docker-compose.yml


def test_compose_keys(compose: dict[str, Any], services: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} <= TOP_KEYS
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        assert set(service.get("healthcheck", {})) <= HEALTHCHECK_KEYS, name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"], f"{name}: {source}"
        assert set(service.get("depends_on", {})) <= set(services), name
        assert set(service.get("secrets", [])) <= set(compose.get("secrets", {})), name
        for config in service.get("configs", []):
            assert set(config) == {"source", "target"}
            assert (ROOT / compose["configs"][config["source"]]["file"]).is_file(), name


def test_compose_config(tmp_path: Path) -> None:
    command = next(
        (
            words
            for words in (["docker-compose"], ["docker", "compose"])
            if shutil.which(words[0])
            and subprocess.run([*words, "version"], capture_output=True).returncode == 0
        ),
        None,
    )
    if command is None:
        pytest.skip("docker-compose is not installed")
    shutil.copy(COMPOSE, tmp_path)
    required = {"OPENSEARCH_PASSWORD", "FLOWER_BASIC_AUTH", *COMPOSE_VARIABLES}
    values = {**{name: "x:y" for name in required}, "OPENAI_API_KEY": "k"}

    def config(left_out: str) -> subprocess.CompletedProcess[str]:
        lines = [f"{name}={value}" for name, value in values.items() if name != left_out]
        (tmp_path / ".env").write_text("\n".join(lines))
        return subprocess.run(
            [*command, "config", "-q"],
            cwd=tmp_path,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (config("").returncode, config("").stderr) == (0, "")
    for name in required:
        answer = config(name)
        assert answer.returncode != 0
        assert f"set {name}" in answer.stderr


def test_every_variable_of_compose_is_a_setting(services: dict[str, Any]) -> None:
    settings = {name.upper() for name in Settings.model_fields}
    known = settings | FLOWER_VARIABLES | COMPOSE_VARIABLES | PROFILE_VARIABLES
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE.read_text())) <= known
    for name in OURS:
        assert set(services[name]["environment"]) <= known, name


def test_settings_of_compose_are_accepted(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in services["worker"]["environment"].items():
        assert isinstance(value, str), f"{name}: YAML would turn it into a {type(value).__name__}"
        monkeypatch.setenv(name, re.sub(r"\$\{[^}]*\}", "x", value))
    settings = load_settings(openai_api_key="k")
    assert settings.opensearch_address == "https://opensearch:9200"
    assert settings.vector_cache_url == "redis://:x@cache:6379/0"


def test_ports_are_open_on_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 7
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_watched_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        tag = service["image"].rpartition(":")[2]
        assert tag == "local" or re.match(r"v?\d+\.\d+", tag), f"{name}: no pinned image"


@pytest.mark.parametrize("name", [*OURS, "metrics"])
def test_our_containers_may_little(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    assert service["user"] == "10001:10001" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["volumes"] == ["state:/var/lib/enrich"]


def redis_options(service: dict[str, Any]) -> dict[str, str]:
    lines = service["environment"]["OPTIONS"].splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def test_the_broker_never_evicts_and_keeps_its_data(services: dict[str, Any]) -> None:
    broker, cache = redis_options(services["redis"]), redis_options(services["cache"])
    assert broker["maxmemory-policy"] == "noeviction"
    assert broker["appendonly"] == "yes"
    assert services["redis"]["volumes"] == ["redis:/data"]
    assert cache["maxmemory-policy"] == "allkeys-lru"


@pytest.mark.parametrize("name", ["redis", "cache"])
def test_redis_asks_for_a_password_that_no_argument_shows(
    name: str, services: dict[str, Any], tmp_path: Path
) -> None:
    # The service's own command, with a real server and, for the image's entry point, a stand-in.
    (port,) = free_ports(1)
    server, *_ = server_argv(port=port, folder=tmp_path)
    entry = tmp_path / "docker-entrypoint.sh"
    entry.write_text(f'#!/bin/sh\nshift; exec {server} "$@" --port {port} --dir {tmp_path}\n')
    entry.chmod(0o700)
    words = [word.replace("$$", "$") for word in services[name]["command"]]
    password = "s3cret"
    environment = {**services[name]["environment"], "REDISCLI_AUTH": password}
    process = subprocess.Popen(
        words, env={**environment, "PATH": f"{tmp_path}:/usr/bin:/bin"}, stdout=subprocess.DEVNULL
    )
    try:
        given = redis.Redis(port=port, password=password, retry=patient())
        kept = given.config_get("maxmemory*", "appendonly")
        assert kept["maxmemory-policy"] == redis_options(services[name])["maxmemory-policy"]
        assert kept["appendonly"] == redis_options(services[name])["appendonly"]
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        # The server itself, so that a stop reaches it.
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "-server" in Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")[0]
        given.close()
    finally:
        process.terminate()
        process.wait()


def patient() -> Retry:
    """Until a server that was just started takes connections."""
    return Retry(ConstantBackoff(0.05), retries=200)


def test_none_but_ours_reach_redis(compose: dict[str, Any], services: dict[str, Any]) -> None:
    for name, service in services.items():
        inside = "queue" in service["networks"]
        assert ("kafka" in service["networks"]) is (name in ("kafka", "consumer")), name
        assert inside is (name in (*OURS, "metrics", "redis", "cache")), name
    assert services["redis"]["networks"] == services["cache"]["networks"] == ["queue"]
    assert compose["networks"]["queue"] == {"internal": True}


def test_a_worker_gets_the_time_that_its_soft_shutdown_takes(services: dict[str, Any]) -> None:
    # In a process of its own: celeryconfig reads the environment when it is imported.
    told = subprocess.run(
        [sys.executable, "-c", "import celeryconfig as c; print(c.worker_soft_shutdown_timeout)"],
        cwd=ROOT,
        env={"OPENAI_API_KEY": "k"},
        capture_output=True,
        text=True,
        check=True,
    )
    soft = float(told.stdout)
    grace = DURATION.match(services["worker"]["stop_grace_period"])
    assert grace is not None and int(grace[1]) >= 2 * soft
    assert services["worker"]["stop_signal"] == "SIGQUIT"
    service = unit("worker")["Service"]
    assert int(service["TimeoutStopSec"]) >= 2 * soft
    assert (service["KillSignal"], service["KillMode"]) == ("SIGQUIT", "mixed")


def test_who_has_no_kafka_gets_neither_broker_nor_consumer(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "profiles" in service} == {
        "kafka",
        "consumer",
        "api",
        *MONITORING,
    }
    needs = {"opensearch", "redis", "cache"}
    assert services["worker"]["depends_on"].keys() == needs
    # The consumer alone may read from a broker that .env names.
    assert set(services["consumer"]["profiles"]) > set(services["kafka"]["profiles"])
    assert services["consumer"]["depends_on"].pop("kafka")["required"] is False
    assert services["consumer"]["depends_on"] == services["worker"]["depends_on"]
    named = services["consumer"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    inside = named.partition(":-")[2].rstrip("}")
    assert f"INSIDE://{inside}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_monitoring_is_a_profile_of_its_own_and_has_no_other_way_in(
    services: dict[str, Any],
) -> None:
    for name in MONITORING:
        assert services[name]["profiles"] == ["monitoring"]
    reached = {name for name, service in services.items() if "monitoring" in service["networks"]}
    assert reached == set(MONITORING)
    assert "ports" not in services["metrics"], "it has no login"


def test_prometheus_scrapes_what_is_offered_and_loads_each_rule(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    given = mounted(compose, services["prometheus"])
    config = yaml.safe_load(given["/etc/prometheus/prometheus.yml"].read_text())
    port = re.search(r"--port (\d+)", services["metrics"]["command"])
    assert port is not None
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"metrics:{port[1]}"]}]
    files = {path.name for path in (ROOT / "deploy" / "prometheus").glob("*-rules.yml")}
    assert set(config["rule_files"]) == files
    assert {f"/etc/prometheus/{name}" for name in files} < set(given)
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "config", str(given["/etc/prometheus/prometheus.yml"])],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_finds_prometheus_and_the_dashboard(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    given = mounted(compose, services["grafana"])
    folder = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(given[f"{folder}/datasources/prometheus.yml"].read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load(given[f"{folder}/dashboards/enrich.yml"].read_text())["providers"]
    path = provider["options"]["path"]
    assert json.loads(given[f"{path}/enrich.json"].read_text())["uid"] == "enrich"


def test_grafana_does_not_start_without_a_password(
    services: dict[str, Any], tmp_path: Path
) -> None:
    service = services["grafana"]
    assert service["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    begin = tmp_path / "run.sh"
    begin.write_text("#!/bin/sh\necho begun\n")
    begin.chmod(0o700)
    words = [w.replace("$$", "$").replace("/run.sh", str(begin)) for w in service["entrypoint"]]

    def start(password: str) -> subprocess.CompletedProcess[str]:
        environment = {"GF_SECURITY_ADMIN_PASSWORD": password, "PATH": "/usr/bin:/bin"}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)

    assert start("s3cret").stdout == "begun\n"
    refused = start("")
    assert refused.returncode == 1 and "set GRAFANA_PASSWORD in .env" in refused.stderr


def mounted(compose: dict[str, Any], service: dict[str, Any]) -> dict[str, Path]:
    """Path in the container → file of the checkout."""
    return {
        config["target"]: ROOT / compose["configs"][config["source"]]["file"]
        for config in service["configs"]
    }


def test_a_consumer_gets_the_time_that_its_batch_takes(services: dict[str, Any]) -> None:
    grace = DURATION.match(services["consumer"]["stop_grace_period"])
    assert grace is not None and int(grace[1]) >= 2 * GRACE_SECONDS
    service = unit("consumer")["Service"]
    assert int(service["TimeoutStopSec"]) >= 2 * GRACE_SECONDS
    assert service["KillSignal"] == "SIGTERM"


# -- Dockerfile


def test_the_image_is_pinned_and_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(set(images)) == 1
    assert re.match(r"^python:3\.\d+\.\d+-slim-\w+$", images[0])
    assert "requirements-dev" not in text
    (user,) = re.findall(r"^USER (\S+)$", text, re.M)
    assert not user.startswith(("0", "root"))


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word
        for words in re.findall(r"^COPY (?!--)(.*)$", (ROOT / "Dockerfile").read_text(), re.M)
        for word in words.split()[:-1]
    }
    assert allowed == copied
    assert all((ROOT / name).exists() for name in copied)


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Of a lock: package → its version and how many hashes it has."""
    text = (ROOT / name).read_text()
    # What stands in an index' place names a host, and is another machine's business.
    assert "://" not in text
    entries = re.split(r"^(?=[\w.-]+(?:\[\w+\])?==)", text, flags=re.M)[1:]
    found = {}
    for entry in entries:
        package, version = re.match(r"([\w.-]+)(?:\[\w+\])?==([\w.]+)", entry).groups()  # type: ignore[union-attr]
        found[package.lower()] = (version, entry.count("--hash=sha256:"))
    return found


def test_every_package_is_locked_with_its_hashes() -> None:
    production, development = locked("requirements.lock"), locked("requirements-dev.lock")
    extras, image = locked("requirements-extras.lock"), locked("requirements-image.lock")
    for lock in (production, development, extras, image):
        assert all(hashes for _, hashes in lock.values())
    # What the image has: production, the consumer's client, and the service's framework.
    assert image.keys() - production.keys() >= {"confluent-kafka", "fastapi", "uvicorn"}
    assert not image.keys() & {"boto3", "opentelemetry-sdk"}
    assert production.items() <= image.items() <= extras.items()
    assert production.items() <= development.items()
    assert production.items() <= extras.items()
    assert all(extras[name] == development[name] for name in extras.keys() & development.keys())
    for file, lock in (("requirements.txt", production), ("requirements-dev.txt", development)):
        lines = (ROOT / file).read_text().splitlines()
        named = [line for line in lines if line and not line.startswith(("#", "-r "))]
        for line in named:
            pinned = re.match(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)(?:; .+)?$", line)
            assert pinned is not None, line
            assert lock[pinned[1].lower()][0] == pinned[2]
    for path in ("Makefile", "Dockerfile"):
        assert "--require-hashes -r requirements" in (ROOT / path).read_text()


def test_production_is_pinned_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    # `make lock` copies them.
    assert {line for line in lines if line[0] != "#"} == set(project["dependencies"])
    extras = project["optional-dependencies"]
    assert set(extras) == {"kafka", "api", "aws", "otel"}
    lock = locked("requirements-extras.lock")
    for pinned in (pin for pins in extras.values() for pin in pins):
        # Behind a semicolon stands for which systems it is.
        name, _, version = pinned.partition(";")[0].partition("==")
        assert lock[name][0] == version


def test_every_import_is_of_a_package_that_is_named() -> None:
    # What another package brings may go with its next version.
    owners = packages_distributions()
    lines = [
        line
        for file in ("requirements.txt", "requirements-extras.lock")
        for line in (ROOT / file).read_text().splitlines()
    ]
    named = {line.partition("==")[0].lower() for line in lines if "==" in line}
    for path in SHIPPED:
        for module in imported(path) - set(sys.stdlib_module_names) - {"enrich", "tasks"}:
            packages = {name.lower().replace("_", "-") for name in owners[module]}
            assert packages & named, f"{path.name} imports {module}"


def test_every_extra_is_imported_somewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    owners = packages_distributions()
    used = {
        name.lower().replace("_", "-")
        for path in SHIPPED
        for module in imported(path)
        for name in owners.get(module, ())
    }
    for extra, pins in project["optional-dependencies"].items():
        assert used & {pin.partition("==")[0] for pin in pins}, extra


def test_nobody_is_told_to_install_it_from_an_index() -> None:
    # It is on none: whoever takes the name there would be installed.
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    for path in (*texts, *SHIPPED):
        assert not re.search("install.*enrich-logs", path.read_text()), path


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


# -- systemd


@pytest.mark.parametrize("name", OURS)
def test_units(name: str) -> None:
    service = unit(name)["Service"]
    assert service["User"] == "enrich"
    assert service["Restart"] == "always"
    assert service["EnvironmentFile"] == "/etc/enrich/enrich.env"
    # Where the log file and beat's schedule go, since everything else is read-only.
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"


# -- the OpenSearch role


def actions(name: str) -> tuple[set[str], list[dict[str, Any]]]:
    role = json.loads((ROOT / "deploy" / f"{name}.json").read_text())
    assert set(role) == {
        "description", "cluster_permissions", "index_permissions", "tenant_permissions",
    }  # fmt: skip
    return set(role["cluster_permissions"]), role["index_permissions"]


def test_the_role_cannot_create_or_delete() -> None:
    cluster, indices = actions("opensearch-role")
    of_logs, of_runs = indices
    allowed = cluster | set(of_logs["allowed_actions"])
    for action in allowed:
        # Single actions; a * only for an action's own parts, such as `search[phase/query]`.
        assert re.match(r"^(cluster|indices):[a-z_]+/[a-z_/]+\*?$", action), action
        for word in (
            "create",
            "delete",
            "close",
            "aliases",
            "template",
            "pipeline",
            "cluster:admin",
        ):
            assert word not in action, action
    assert not any(action.startswith("indices:admin/") for action in cluster)
    # But for the one index that is ours, which no pattern of logs reaches.
    assert of_runs == {
        "index_patterns": [RUNS_INDEX],
        "allowed_actions": [
            "indices:admin/create",
            "indices:data/read/search*",
            "indices:data/write/bulk*",
            "indices:data/write/delete*",
            "indices:data/write/index*",
        ],
    }
    assert not re.fullmatch(of_logs["index_patterns"][0][1:-1], RUNS_INDEX)


def test_the_role_covers_what_is_asked() -> None:
    cluster, indices = actions("opensearch-role")
    assert {"indices:data/write/bulk", "indices:data/read/mget", "indices:data/read/msearch"} <= (
        cluster
    )
    allowed = set(indices[0]["allowed_actions"])
    for action in (
        "indices:data/read/search*", "indices:data/read/field_caps*", "indices:data/write/bulk*",
        "indices:data/write/index*", "indices:data/write/update*", "indices:admin/mapping/put",
        "indices:admin/mappings/get*", "indices:monitor/settings/get*", "indices:admin/refresh*",
    ):  # fmt: skip
        assert action in allowed


@pytest.mark.parametrize(
    ("index", "allowed"),
    [
        ("a_b", True),
        ("3f2504e0_4f89_11d3_9a0c_0305e82c3301_2026_11", True),
        (".kibana_1", False),
        (".opendistro_security", False),
        (".plugins-ml_config", False),
        ("plain", False),
    ],
)
def test_the_role_reaches_what_the_default_pattern_finds(index: str, allowed: bool) -> None:
    _, indices = actions("opensearch-role")
    (pattern,) = indices[0]["index_patterns"]
    # Between slashes it is a regular expression for the whole name.
    assert pattern.startswith("/") and pattern.endswith("/")
    assert bool(re.fullmatch(pattern[1:-1], index)) is allowed


def test_the_services_role_is_the_reading_part_of_the_other() -> None:
    cluster, (of_logs, of_runs) = actions("opensearch-role-service")
    all_cluster, (all_of_logs, all_of_runs) = actions("opensearch-role")
    assert cluster <= all_cluster
    for some, every in ((of_logs, all_of_logs), (of_runs, all_of_runs)):
        assert some["index_patterns"] == every["index_patterns"]
        assert set(some["allowed_actions"]) <= set(every["allowed_actions"])
    for action in {*cluster, *of_logs["allowed_actions"], *of_runs["allowed_actions"]}:
        assert re.match(
            r"^(cluster:monitor|indices:(data/read|monitor))/|.*/(get\*|index)$", action
        )


def test_the_right_to_put_a_template_is_a_role_of_its_own() -> None:
    cluster, indices = actions("opensearch-role-template")
    assert indices == []
    assert cluster == {
        "indices:admin/index_template/get",
        "indices:admin/index_template/put",
        "indices:admin/index_template/simulate",
        "indices:admin/index_template/simulate_index",
        "indices:admin/template/get",
    }
