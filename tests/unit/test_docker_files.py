"""The files in docker/: well-formed, safe, and equal to the flags, variables, pages and metrics of the program."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from reproq_listen.cli import main as cli
from reproq_listen.config import definitions, parsers
from reproq_listen.config.settings import worker_settings
from reproq_listen.http import metric_definitions
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.systemd import ServiceManager
from tests.support.database import ROOT

DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "reproq-listen"}
KUBERNETES: list[dict[str, Any]] = [
    each for path in sorted((DOCKER / "kubernetes").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]
PODS = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in KUBERNETES if "template" in each["spec"]}
UNITS = sorted((DOCKER / "systemd").glob("*.service"))

# From the signal to the end: running tasks, their grace, and storing what came out.
WORKER = worker_settings({"--dsn": "postgresql://h/d"}, {})
TO_STOP = WORKER.shutdown_timeout + WORKER.grace + timedelta(seconds=5)
# Variables that are no settings of the program: of Python, and of programs that look up their user.
OTHERS = {"PATH", "USER", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, line continuations joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(at for at, (word, _) in enumerate(found) if word == "FROM") :]


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit; a name that stands several times has several parsers."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def image_environment() -> dict[str, str]:
    text = " ".join(rest for word, rest in last_stage() if word == "ENV")
    return dict(pair.split("=", 1) for pair in text.split())


def environments() -> dict[str, dict[str, str]]:
    """Every set of variables that these files give to the program."""
    found = {"image": image_environment()}
    found |= {f"compose {name}": service["environment"] for name, service in OURS.items()}
    for name, pod in PODS.items():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            found[f"kubernetes {name} {container['name']}"] = {
                entry["name"]: entry.get("value", "x") for entry in container.get("env", ())
            }
    for path in UNITS:
        found[path.name] = dict(pair.split("=", 1) for line in unit(path)["Environment"] for pair in line.split())
    return found


def command_lines() -> dict[str, list[str]]:
    """Every way in which these files start the program: command and flags."""
    stage = dict(last_stage())
    found = {"image": json.loads(stage["CMD"]), "health check": json.loads(stage["HEALTHCHECK"].split("CMD ")[1])[1:]}
    found |= {f"compose {name}": service["command"] for name, service in OURS.items()}
    for name, pod in PODS.items():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            found[f"kubernetes {name} {container['name']}"] = container["args"]
    for path in UNITS:
        found[path.name] = unit(path)["ExecStart"][0].split()[1:]
    for number, line in enumerate(re.findall(r"reproq-listen ([a-z]+(?: --[a-z-]+)*)", all_text())):
        found[f"in prose {number}: {line}"] = line.split()
    return found


def all_text() -> str:
    return "\n".join(path.read_text() for path in sorted(DOCKER.rglob("*")) if path.is_file())


@pytest.mark.parametrize("where", command_lines())
def test_commands_and_flags_exist(where: str) -> None:
    """What is started is a command of the program, with flags that its --help names."""
    command, *flags = command_lines()[where]
    known = set(re.findall(r"(--[a-z-]+)", cli.command_usage(command, "reproq-listen")))
    assert {flag.partition("=")[0] for flag in flags if flag.startswith("-")} <= known


@pytest.mark.parametrize("where", environments())
def test_variables_are_known_and_hold_good_values(where: str) -> None:
    """Every variable is one that the program reads, with a value that it takes."""
    environ = environments()[where]
    names = {setting.variable: setting for setting in definitions.ALL if setting.variable}
    for name, value in environ.items():
        if name in OTHERS:
            continue
        setting = names.get(name) or names[name.removesuffix("_FILE")]
        assert setting.is_secret or not name.endswith("_FILE"), f"{name} cannot come from a file"
        if not name.endswith("_FILE"):
            setting.parse(re.sub(r"\$\{\w+:-(.*)\}", r"\1", value))


def test_docker_image_is_built_from_what_is_there() -> None:
    """Each COPY finds its source, is not ignored, and takes all that the wheel is made of."""
    ignored = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] != "#"]
    stages = [rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM" and " AS " in rest]
    copied: set[str] = set()
    for word, rest in instructions():
        if word != "COPY":
            continue
        if rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
        else:
            copied |= set(rest.split()[:-1])
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert ignored[0] == "*"
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*build["packages"], *build["force-include"], "pyproject.toml", "README.md", "LICENSE"} == copied


def test_docker_image_runs_as_a_named_user_under_an_init() -> None:
    """Not root, by number; the name exists, also for programs that ask the environment; process 1 is an init."""
    stage = last_stage()
    settings = dict(stage)
    number = settings["USER"].split(":")[0]
    assert int(number) > 0
    made = next(rest for word, rest in stage if word == "RUN")
    assert re.search(rf"useradd --uid {number} .* reproq\b", made)
    assert image_environment()["USER"] == "reproq"
    assert json.loads(settings["ENTRYPOINT"]) == ["tini", "--", "reproq-listen"]
    assert "install --yes --no-install-recommends tini" in made
    assert stage[0] == ("FROM", "${BASE}")
    assert ("ARG", "BASE=python:3.13-slim-bookworm") in instructions()


def test_compose_holds_together() -> None:
    """Secrets and dependencies exist; our containers are locked down; workers have time to drain."""
    script = (DOCKER / "make-secrets").read_text()
    for name, source in COMPOSE["secrets"].items():
        assert source == {"file": f"./secrets/{name}"}
        assert re.search(rf"password {name.removesuffix('_password')}\b|for role in .*\b{name.split('_')[0]}\b", script)
    for name, service in COMPOSE["services"].items():
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        for wanted in service.get("depends_on", {}):
            assert wanted in COMPOSE["services"], name
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in service["secrets"], name
    for name, service in OURS.items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
        # Only a worker has the page that the image's health check asks.
        assert service.get("healthcheck", {}).get("disable", False) == (service["command"][0] != "worker"), name
    grace = parsers.duration(timedelta(0), timedelta(hours=1))(OURS["worker"]["stop_grace_period"])
    assert grace >= TO_STOP
    assert COMPOSE["services"]["grants"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_make_secrets_creates_them_once() -> None:
    """Every secret of compose.yaml; closed to others by their folder; a second run changes none, as any user."""
    other = 65534 if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, other, -1)
        _make_twice(Path(home) / "secrets", other)


def _make_twice(folder: Path, user: int) -> None:
    script = (DOCKER / "make-secrets").read_bytes()

    def make() -> dict[str, str]:
        subprocess.run(["sh", "-s", folder], input=script, check=True, user=user, cwd="/")
        return {path.name: path.read_text() for path in folder.iterdir()}

    made = make()
    assert made.keys() == COMPOSE["secrets"].keys()
    assert folder.stat().st_mode & 0o077 == 0
    assert len(made["owner_password"]) == 48
    assert made["worker_url"] == f"postgresql://reproq_worker_login:{made['worker_password']}@postgres/reproq"
    assert make() == made
    (folder / "worker_url").unlink()
    assert make() == made
    logins = (DOCKER / "postgres" / "10-logins.sh").read_text()
    assert set(re.findall(r"reproq_\w+_login", "".join(made.values()))) == set(re.findall(r"reproq_\w+_login", logins))


def test_docker_worker_unit_fits_the_drain_and_the_watchdog() -> None:
    """systemd waits for the drain, signals the worker alone, and expects the watchdog notification late enough."""
    found = unit(DOCKER / "systemd" / "reproq-worker@.service")
    assert found["Type"] == ["notify"]
    assert found["KillMode"] == ["mixed"]
    assert found["KillSignal"] == ["SIGTERM"]
    assert timedelta(seconds=int(found["TimeoutStopSec"][0])) >= TO_STOP
    assert found["OOMPolicy"] == ["continue"]
    watchdog = int(found["WatchdogSec"][0])
    manager = ServiceManager.adopt(
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": f"{watchdog}000000"}, set_up(stream=io.StringIO())
    )
    # A call to the database may take ten seconds, a connection five, the pause before the next try two.
    assert manager.pause + 10 + 5 + 2 < watchdog


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_sound(path: Path, tmp_path: Path) -> None:
    """Not root, no new rights, the DSN as a credential; and no complaint of systemd-analyze, where it is installed."""
    found = unit(path)
    assert found.get("User", ["root"]) != ["root"] or found.get("DynamicUser") == ["yes"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["LoadCredential"] == ["database_url:/etc/reproq/database_url"]
    assert "DATABASE_URL_FILE=%d/database_url" in found["Environment"][0]
    verifier = shutil.which("systemd-analyze")
    if verifier is not None:
        copy = tmp_path / path.name.replace("@", "@1")
        copy.write_text(path.read_text().replace("/opt/reproq/bin/reproq-listen", sys.executable))
        done = subprocess.run([verifier, "verify", copy], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def expressions() -> dict[str, str]:
    """Every expression about metrics."""
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    board = json.loads((DOCKER / "grafana" / "reproq.json").read_text())
    found = {rule["alert"]: rule["expr"] for rule in rules}
    found |= {
        f"panel {each['title']}": " ; ".join(target["expr"] for target in each["targets"]) for each in board["panels"]
    }
    return found


@pytest.mark.parametrize("where", expressions())
def test_metrics_exist_with_their_labels(where: str) -> None:
    """Alerts and panels ask for metrics that the program serves, and for labels that these have."""
    known = {metric.name: metric for metric in metric_definitions.ALL}
    text = expressions()[where]
    used = re.findall(r"(reproq_\w+)(?:\{([^}]*)\})?", text)
    assert used or "up{" in text
    labels: set[str] = set()
    for name, selector in used:
        metric = known.get(name) or known[name.removesuffix("_bucket")]
        assert name == metric.name or metric.kind == "histogram"
        labels |= set(metric.labels) | ({"le"} if metric.kind == "histogram" else set())
        assert set(re.findall(r"(\w+)=", selector)) <= set(metric.labels)
    for grouped in re.findall(r"(?:by|on) \(([^)]*)\)", text):
        assert set(grouped.split(", ")) <= labels


def test_alerts_have_a_severity_and_a_summary() -> None:
    """Each has a severity and a summary; Prometheus loads them and scrapes the workers' port."""
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert all(rule["labels"]["severity"] and rule["annotations"]["summary"] for rule in rules)
    scrape = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
    assert scrape["rule_files"] == ["alerts.yaml"]
    target = scrape["scrape_configs"][0]["dns_sd_configs"][0]
    assert target["names"][0] in OURS
    assert OURS["worker"]["environment"]["METRICS_ADDR"].endswith(f":{target['port']}")


def test_docker_panels_of_the_dashboard_do_not_overlap() -> None:
    """Ids are unique, and so is each panel's place."""
    panels = json.loads((DOCKER / "grafana" / "reproq.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_pods_probe_pages_that_exist_and_are_locked_down() -> None:
    """Liveness never asks the database; containers do not run as root, cannot write, and have time to drain."""
    worker = PODS["reproq-worker"]
    container = worker["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    pages = (ROOT / "reproq_listen" / "http" / "app.py").read_text()
    assert '"/livez"' in pages
    assert '"/readyz"' in pages
    address = next(entry["value"] for entry in container["env"] if entry["name"] == "METRICS_ADDR")
    assert address.endswith(f":{container['ports'][0]['containerPort']}")
    assert timedelta(seconds=worker["terminationGracePeriodSeconds"]) >= TO_STOP
    user = int(dict(last_stage())["USER"].split(":")[0])
    for pod in PODS.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == user
        for each in (*pod.get("initContainers", ()), *pod["containers"]):
            assert each["securityContext"]["readOnlyRootFilesystem"]
            assert not each["securityContext"]["allowPrivilegeEscalation"]
            assert {"name": "tmp", "mountPath": "/tmp"} in each["volumeMounts"]


def test_keda_scales_the_worker_by_a_secret_that_exists() -> None:
    """The scaled object names the Deployment, down to zero; its login is its trigger's."""
    scaled = next(each for each in KUBERNETES if each["kind"] == "ScaledObject")
    login = next(each for each in KUBERNETES if each["kind"] == "TriggerAuthentication")
    assert scaled["spec"]["scaleTargetRef"]["name"] in PODS
    assert scaled["spec"]["minReplicaCount"] == 0
    assert scaled["spec"]["triggers"][0]["authenticationRef"]["name"] == login["metadata"]["name"]


def test_docker_every_file_is_listed() -> None:
    """docker/README.md names what is there."""
    text = (DOCKER / "README.md").read_text()
    for path in DOCKER.rglob("*"):
        if path.is_file() and not fnmatch.fnmatch(path.name, ".*") and "secrets" not in path.parts:
            relative = path.relative_to(DOCKER)
            assert str(relative) in text or f"{relative.parts[0]}/" in text or path.name in ("README.md",), relative
