"""deploy/kubernetes: that it is valid, agrees with the settings and with Celery's, and is no wider
open than it says.

Kubernetes' schemas come from kubernetes-validate, so that no cluster is needed; KEDA's two kinds
have a short schema of our own. The overlays are built by kustomize or kubectl where one of them is
there, else each file is looked at as it stands.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from kombu.transport.redis import Channel

from enrich import __version__
from enrich.cli.serve import GRACE_SECONDS as REQUESTS_SECONDS
from enrich.models import RunRecord
from enrich.realtime.consumer import GRACE_SECONDS
from enrich.settings import Settings, load_settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import Reading
from enrich.status.report import Backlog, Status, TotalsReport

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("fixed", "keda")
#: The oldest that Kubernetes' own project still mends, about, and the newest of the package.
VERSIONS = ("1.33", "1.37")
PROGRAMS = ("worker", "beat", "flower")
#: With those that an overlay asks for by a component.
ALL_PROGRAMS = (*PROGRAMS, "consumer", "api")
COMPONENT = FOLDER / "components" / "consumer"

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)

Object = dict[str, Any]


@cache
def builder() -> tuple[str, ...] | None:
    """The command that builds a folder of kustomize, if there is one."""
    if found := shutil.which("kustomize"):
        return (found, "build")
    return (found, "kustomize") if (found := shutil.which("kubectl")) else None


@cache
def built(overlay: str) -> tuple[Object, ...]:
    """The objects of an overlay, as they would be applied."""
    command = builder()
    if command is None:
        pytest.skip("neither kustomize nor kubectl is here: the files are looked at one by one")
    done = subprocess.run(
        [*command, str(FOLDER / "overlays" / overlay)],
        capture_output=True, text=True, env={"PATH": os.defpath, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


@cache
def files() -> tuple[Object, ...]:
    """The objects of all files, as they stand."""
    found: list[Object] = []
    for path in sorted(FOLDER.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += yaml.safe_load_all(path.read_text())
    return tuple(found)


def check(thing: Object) -> None:
    if thing["apiVersion"].startswith("keda.sh/"):
        schemas = yaml.safe_load((Path(__file__).parent / "keda_schema.yaml").read_text())
        Draft202012Validator(schemas[thing["kind"]]).validate(thing)
        if thing["kind"] == "ScaledObject":
            check(autoscaler(thing))
        return
    for version in VERSIONS:
        assert kubernetes_validate.validate(thing, version, strict=True) == version


def autoscaler(scaled: Object) -> Object:
    """What KEDA makes of the part that it hands on."""
    spec = scaled["spec"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": {
            "maxReplicas": spec["maxReplicaCount"],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    }


def named(things: tuple[Object, ...], kind: str, name: str) -> Object:
    (found,) = [t for t in things if t["kind"] == kind and t["metadata"]["name"] == name]
    return found


def deployment(program: str) -> Object:
    return named(files(), "Deployment", f"enrich-{program}")


def pod(program: str) -> Object:
    spec: Object = deployment(program)["spec"]["template"]["spec"]
    return spec


def container(program: str) -> Object:
    (only,) = pod(program)["containers"]
    return dict(only)


def scaled() -> Object:
    return dict(named(files(), "ScaledObject", "enrich-worker")["spec"])


# -- valid


@pytest.mark.parametrize("thing", files(), ids=lambda t: f"{t['kind']}-{t['metadata']['name']}")
def test_each_file_is_valid(thing: Object) -> None:
    check(thing)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_is_built_and_valid(overlay: str) -> None:
    things = built(overlay)
    for thing in things:
        check(thing)
        assert thing["metadata"]["namespace"] == "enrich"
    (settings,) = [t["metadata"]["name"] for t in things if t["kind"] == "ConfigMap"]
    # A digest, so that another setting starts the programs anew.
    assert re.fullmatch(r"enrich-[a-z0-9]{10}", settings)
    for program in PROGRAMS:
        made = named(things, "Deployment", f"enrich-{program}")["spec"]
        (only,) = made["template"]["spec"]["containers"]
        assert only["envFrom"] == [{"configMapRef": {"name": settings}}]
        assert only["image"] == f"enrich:{__version__}"
        labels = made["template"]["metadata"]["labels"]
        assert made["selector"]["matchLabels"].items() <= labels.items()
    worker = named(things, "Deployment", "enrich-worker")["spec"]
    # A number there would undo KEDA's at each `apply`.
    assert worker.get("replicas") == {"fixed": 2, "keda": None}[overlay]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replica"), 2),
        (("spec", "template", "spec", "terminationGracePeriodSeconds"), "60"),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "exec", "cmd"), ["x"]),
    ],
)
def test_a_mistake_is_found(path: tuple[str | int, ...], value: Any) -> None:
    broken = yaml.safe_load(yaml.safe_dump(deployment("worker")))
    *way, last = path
    place: Any = broken
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        check(broken)


# -- the programs and their settings


def environment(program: str) -> dict[str, str]:
    """What a container gets, secrets as `secret`; expanded as Kubernetes does, in order."""
    lines = (FOLDER / "base" / "settings.env").read_text().splitlines()
    if program == "consumer":
        made = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())
        (settings,) = made["configMapGenerator"]
        assert (settings["name"], settings["behavior"]) == ("enrich", "merge")
        lines += settings["literals"]
    found = dict(line.split("=", 1) for line in lines)
    for each in container(program)["env"]:
        if each.get("valueFrom", {}).get("secretKeyRef", {}).get("optional"):
            continue
        value = each.get("value", "secret")
        found[each["name"]] = re.sub(r"\$\(([A-Z_]+)\)", lambda name: found[name[1]], value)
    return found


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_settings_are_known_and_accepted(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = environment(program)
    ours = {name.upper() for name in Settings.model_fields}
    parts = {"REDIS_ADDRESS", "CACHE_ADDRESS", "REDIS_PASSWORD", "FLOWER_USER", "FLOWER_PASSWORD"}
    flowers = {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_BASIC_AUTH"}
    assert given.keys() <= ours | parts | flowers | {"REMAP_SIGTERM"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.redis_url.get_secret_value() == "redis://:secret@redis:6379/0"
    assert settings.vector_cache_url == "redis://:secret@redis-cache:6379/0"
    if program == "consumer":
        assert settings.kafka_topic == ("application-logs",)
        assert settings.kafka_bootstrap_servers == "kafka:9092"
    if program == "flower":
        assert given["FLOWER_BASIC_AUTH"] == "secret:secret"
    if program == "api":
        assert (settings.enrich_api_address, settings.enrich_api_port) == ("0.0.0.0", 8000)


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_the_same_command_as_everywhere(program: str) -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    procfile = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    more = ["-c", "8"] if program == "worker" else []
    assert container(program)["args"] == [*shlex.split(procfile[program]), *more]


def test_secrets_are_named_and_not_there() -> None:
    readme = (FOLDER / "README.md").read_text()
    (command,) = re.findall(
        r"^kubectl .* create secret generic enrich (.*?)^```", readme, re.M | re.S
    )
    made = set(re.findall(r"--from-literal=([a-z-]+)=", command))
    used = {
        each["valueFrom"]["secretKeyRef"]["key"]
        for program in ALL_PROGRAMS
        for each in container(program)["env"]
        if "valueFrom" in each and each["valueFrom"]["secretKeyRef"]["name"] == "enrich"
    }
    referred = {
        ref["key"]
        for thing in files()
        if thing["kind"] == "TriggerAuthentication"
        for ref in thing["spec"]["secretTargetRef"]
    }
    assert referred <= used == made
    assert "Secret" not in {thing["kind"] for thing in files()}
    # Only they have the key, since only they pay.
    for program in ALL_PROGRAMS:
        pays = program in ("worker", "consumer", "api")
        assert ("openai-api-key" in str(container(program)["env"])) is pays


def test_the_consumers_secrets_are_named_and_may_be_missing() -> None:
    readme = (FOLDER / "README.md").read_text()
    (command,) = re.findall(
        r"^kubectl .* create secret generic enrich-kafka (.*?)(?:^kubectl|^```)",
        readme,
        re.M | re.S,
    )
    used = [
        each["valueFrom"]["secretKeyRef"]
        for each in container("consumer")["env"]
        if "valueFrom" in each and each["valueFrom"]["secretKeyRef"]["name"] == "enrich-kafka"
    ]
    assert {ref["key"] for ref in used} == set(re.findall(r"--from-literal=([a-z-]+)=", command))
    assert all(ref["optional"] is True for ref in used)
    (files,) = [v["secret"] for v in pod("consumer")["volumes"] if "secret" in v]
    assert files["optional"] is True
    assert f"create secret generic {files['secretName']} --from-file=" in readme


def test_the_services_keys_are_a_file_for_it_alone() -> None:
    readme = (FOLDER / "README.md").read_text()
    (keys,) = [v["secret"] for v in pod("api")["volumes"] if "secret" in v]
    # Without them it does not start, and waiting for the Secret says so.
    assert keys.get("optional") is None and keys["defaultMode"] == 0o440
    (file,) = re.findall(rf"create secret generic {keys['secretName']} --from-file=(\S+)", readme)
    (mount,) = [m for m in container("api")["volumeMounts"] if m["name"] == "keys"]
    assert environment("api")["ENRICH_API_KEYS_FILE"] == f"{mount['mountPath']}/{file}"
    # The port is one number, wherever it stands.
    (port,) = container("api")["ports"]
    (of_service,) = named(files(), "Service", "enrich-api")["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]
    assert str(port["containerPort"]) == environment("api")["ENRICH_API_PORT"]
    assert f"enrich-api.enrich.svc:{of_service['port']}/" in readme


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_a_pod_may_little(program: str) -> None:
    spec = pod(program)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    # FLOWER_PORT and the like would come from Services otherwise.
    assert spec["enableServiceLinks"] is False
    only = container(program)
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [m["mountPath"] for m in only["volumeMounts"] if not m.get("readOnly")]
    assert written == ["/tmp"]
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert only["resources"]["limits"].keys() == {"memory"}


def test_nobody_reaches_worker_and_beat_and_each_reaches_what_it_asks() -> None:
    policies = [thing["spec"] for thing in files() if thing["kind"] == "NetworkPolicy"]

    def ports(program: str, way: str) -> set[int]:
        labels = deployment(program)["spec"]["template"]["metadata"]["labels"]
        mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
        assert {way for p in mine for way in p["policyTypes"]} == {"Ingress", "Egress"}
        return {port["port"] for p in mine for rule in p.get(way, []) for port in rule["ports"]}

    assert ports("worker", "egress") == {53, 6379, 9200, 443}
    assert ports("beat", "egress") == {53, 6379}
    assert ports("flower", "egress") == {53, 6379, 9200}
    assert ports("consumer", "egress") == {53, 6379, 9200, 443, 9092, 9093}
    assert [ports(program, "ingress") for program in PROGRAMS] == [set(), set(), {5555}]
    assert ports("consumer", "ingress") == set()
    assert ports("api", "egress") == {53, 6379, 9200, 443}
    assert ports("api", "ingress") == {8000}


# -- coming and going


@pytest.fixture
def celery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(ROOT / "celeryconfig.py"))


def test_a_worker_gets_the_time_that_its_soft_shutdown_takes(celery: dict[str, Any]) -> None:
    grace = pod("worker")["terminationGracePeriodSeconds"]
    assert grace >= 2 * celery["worker_soft_shutdown_timeout"]
    assert {"name": "REMAP_SIGTERM", "value": "SIGQUIT"} in container("worker")["env"]


def test_a_consumer_gets_the_time_that_its_batch_takes() -> None:
    assert pod("consumer")["terminationGracePeriodSeconds"] >= 2 * GRACE_SECONDS


def test_the_service_gets_the_time_that_its_requests_take() -> None:
    (_, wait) = container("api")["lifecycle"]["preStop"]["exec"]["command"]
    assert pod("api")["terminationGracePeriodSeconds"] >= int(wait) + 2 * REQUESTS_SECONDS


def test_workers_are_counted_by_the_brokers_own_lists(celery: dict[str, Any]) -> None:
    prefix = celery["broker_transport_options"]["global_keyprefix"]
    lists = {queue.name for queue in celery["task_queues"]} | {Channel.unacked_index_key}
    triggers = [t["metadata"] for t in scaled()["triggers"] if t["type"] == "redis"]
    assert {t["listName"] for t in triggers} == {prefix + name for name in lists}
    for trigger in triggers:
        assert trigger["addressFromEnv"] in environment("worker")
        assert environment("worker")["REDIS_URL"].endswith("/" + trigger["databaseIndex"])
        # One worker's processes.
        assert ["-c", trigger["listLength"]] == container("worker")["args"][-2:]


def test_the_age_is_one_that_flower_tells_and_none_where_no_run_is_at_work() -> None:
    (age,) = [t["metadata"] for t in scaled()["triggers"] if t["type"] == "metrics-api"]
    service = named(files(), "Service", "enrich-flower")
    (port,) = service["spec"]["ports"]
    assert age["url"] == f"http://enrich-flower.enrich.svc:{port['port']}/metrics"
    backlog = Backlog(
        with_vector=0,
        without_vector=1,
        failed=0,
        by_index={},
        oldest_without_vector="2020-01-01T00:00:00Z",
    )

    def told(**status: Any) -> float:
        empty = Status(totals=TotalsReport(), last_runs=[], active_run=None, backlog=backlog)
        reading = Reading(empty.model_copy(update=status), redis_up=True, opensearch_up=True)
        samples = [s for m in EnrichCollector(lambda: reading).collect() for s in m.samples]
        (value,) = [s.value for s in samples if s.name == age["valueLocation"]]
        return float(value)

    run = RunRecord(run_id="r", number=1, trigger="beat", state="running", started_at=NOW)
    assert told() == 0
    assert told(active_run=run) > 10**7
    assert told(active_run=run, paused=True) == 0


def test_all_workers_together_find_enough_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment("worker").items():
        monkeypatch.setenv(name, value)
    processes = int(container("worker")["args"][-1]) * scaled()["maxReplicaCount"]
    assert load_settings().too_few_chunks_for(processes) == ""


def test_workers_go_to_zero_and_a_tick_wakes_one() -> None:
    spec = scaled()
    assert spec["minReplicaCount"] == 0
    assert "replicas" not in deployment("worker")["spec"]
    # All of them gone before the next tick, or it would not be "between ticks".
    interval = load_settings(openai_api_key="k").interval_seconds
    assert spec["cooldownPeriod"] + spec["pollingInterval"] < interval / 2
    assert deployment("beat")["spec"]["replicas"] == 1


def test_a_drained_node_takes_one_worker_at_a_time() -> None:
    for several in ("worker", "consumer", "api"):
        budget = named(files(), "PodDisruptionBudget", f"enrich-{several}")["spec"]
        assert budget["maxUnavailable"] == 1
        selected = budget["selector"]["matchLabels"]
        for program in ALL_PROGRAMS:
            labels = deployment(program)["spec"]["template"]["metadata"]["labels"]
            assert (selected.items() <= labels.items()) is (program == several)


# -- probes


def probe(program: str, name: str, folder: Path) -> bool:
    """What a probe's command answers, with a folder in place of /tmp."""
    command = [
        word.replace("/tmp", str(folder)) for word in container(program)[name]["exec"]["command"]
    ]
    # One process, and no Python.
    assert command[0] in ("find", "test")
    return subprocess.run(command, env={"PATH": os.defpath}, capture_output=True).returncode == 0


@pytest.mark.parametrize(("program", "minutes"), [("worker", 2), ("beat", 10), ("consumer", 2)])
def test_only_a_program_that_hangs_is_started_anew(
    program: str, minutes: int, tmp_path: Path
) -> None:
    alive = tmp_path / Path(environment(program)["ENRICH_ALIVE_FILE"]).name
    # Redis is waited for.
    assert probe(program, "livenessProbe", tmp_path)
    assert not probe(program, "readinessProbe", tmp_path)
    alive.touch()
    assert probe(program, "livenessProbe", tmp_path)
    assert probe(program, "readinessProbe", tmp_path)
    for seconds, lives in ((60 * minutes - 20, True), (60 * (minutes + 1) + 20, False)):
        then = alive.stat().st_mtime - seconds
        alive.touch()
        os.utime(alive, (then, then))
        assert probe(program, "livenessProbe", tmp_path) is lives


def test_flower_and_the_service_are_asked_without_a_process() -> None:
    for program, path in (("flower", "/healthcheck"), ("api", "/healthz")):
        for name in ("livenessProbe", "readinessProbe"):
            assert container(program)[name]["httpGet"] == {"path": path, "port": "http"}
