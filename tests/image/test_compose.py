"""The compose file, without an engine: names that belong together, options and commands as the programs take them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.image.__main__ import HERE
from infra.packages.__main__ import project_version
from pipeline.errors import OptionError
from pipeline.launch.options import parse
from pipeline.launch.options.settings import OPTIONS
from tests.docs.parsers import parsed

FILE = HERE / "compose.yaml"
ROLES = ("jobmanager", "taskmanager", "launch", "page", "python3.11")
OURS = "localhost/event-trigger:"


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def problems(compose: Mapping[str, Any]) -> list[str]:
    """What is wrong with a compose file: names of services, volumes and files, roles, options, ports."""
    services: Mapping[str, Any] = compose["services"]
    found: list[str] = []
    ports: list[str] = []
    for name, service in services.items():
        allowed = {
            *("image", "command", "entrypoint", "environment", "volumes", "ports", "depends_on", "healthcheck"),
            *("restart", "read_only", "tmpfs", "cap_drop", "security_opt", "ulimits"),
        }
        found += [f"{name}: unknown field {field}" for field in service.keys() - allowed]
        for other, condition in service.get("depends_on", {}).items():
            if other not in services:
                found.append(f"{name}: depends on {other}, which is no service")
            elif condition["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                found.append(f"{name}: waits for the health of {other}, which has no health check")
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (FILE.parent / source).exists():
                    found.append(f"{name}: {source} is not there")
            elif source not in compose["volumes"]:
                found.append(f"{name}: {source} is no volume")
        for port in service.get("ports", ()):
            if not port.startswith("127.0.0.1:"):
                found.append(f"{name}: port {port} is open to other machines")
            ports.append(port.split(":")[1])
        if service["image"].startswith(OURS):
            found += of_ours(name, service)
        elif not re.search(r":v?\d+\.\d+\.\d+$", service["image"]):
            found.append(f"{name}: {service['image']} is no fixed version")
    found += [f"port {port} is used twice" for port in set(ports) if ports.count(port) > 1]
    return found


def of_ours(name: str, service: Mapping[str, Any]) -> list[str]:
    """What is wrong with a service of our image."""
    role, *arguments = service["command"]
    found = [] if role in ROLES else [f"{name}: {role} is no role"]
    variables = service.get("environment", {})
    options = {
        f"--{key.removeprefix('EVENT_TRIGGER_').lower()}": value
        for key, value in variables.items()
        if key.startswith("EVENT_TRIGGER_")
    }
    flags = [f"{option}={value}" for option, value in options.items()]
    found += [f"{name}: {option} is no option" for option in options if option[2:] not in OPTIONS]
    try:
        if role == "launch":
            parse(
                [
                    "--runner=FlinkRunner",
                    *(flag.replace("/compose/", f"{FILE.parent}/compose/") for flag in flags),
                    *arguments,
                ]
            )
        elif role == "page":
            parsed(["ui", "--address=0.0.0.0", *arguments, *flags])
    except (OptionError, Exception) as error:  # noqa: BLE001 - whatever it is, the service would not start
        found.append(f"{name}: {error}")
    if not (service.get("read_only") and service.get("cap_drop") == ["ALL"] and service.get("tmpfs") == ["/tmp"]):  # noqa: S108
        found.append(f"{name}: its root file system is not read-only, or it has capabilities")
    return found


def test_the_compose_file_is_in_order(compose: dict[str, Any]) -> None:
    assert problems(compose) == []
    assert set(compose["services"]) >= {
        *("kafka", "jobmanager", "taskmanager", "launch", "page"),
        *("user-api", "receiver", "prometheus", "grafana"),
    }
    assert f"{OURS}${{EVENT_TRIGGER_VERSION:-{project_version()}}}" == compose["services"]["page"]["image"]


def test_the_topics_that_are_made_are_those_that_the_launch_needs(compose: dict[str, Any]) -> None:
    variables = {key: value for key, value in compose["services"]["launch"]["environment"].items() if key != "<<"}
    flags = [
        f"--{key.removeprefix('EVENT_TRIGGER_').lower()}={value}".replace("/compose/", f"{FILE.parent}/compose/")
        for key, value in variables.items()
        if key.startswith("EVENT_TRIGGER_")
    ]
    needed = parse(["--runner=FlinkRunner", *flags]).needed_topics(True).values()
    made = re.search(r"for topic in (.*?);", compose["services"]["topics"]["command"][0])
    assert made is not None
    assert set(made[1].split()) == set(needed)


@pytest.mark.parametrize(
    ("service", "field", "value", "problem"),
    [
        ("launch", "depends_on", {"topic": {"condition": "service_started"}}, "depends on topic, which is no service"),
        ("launch", "depends_on", {"page": {"condition": "service_healthy"}}, "page, which has no health check"),
        ("jobmanager", "command", ["job-manager"], "job-manager is no role"),
        ("taskmanager", "volumes", ["task:/data"], "task is no volume"),
        ("page", "volumes", ["./compse:/compose:ro"], "./compse is not there"),
        ("page", "ports", ["8085:8085"], "open to other machines"),
        ("page", "ports", ["127.0.0.1:8081:8085"], "port 8081 is used twice"),
        ("page", "read_only", False, "not read-only"),
        ("page", "read-only", True, "unknown field read-only"),
        ("kafka", "image", "apache/kafka:latest", "no fixed version"),
        ("launch", "command", ["launch", "--detachd"], "--detachd"),
        ("launch", "environment", {"EVENT_TRIGGER_BOOTSTRAP_SERVER": "kafka:9092"}, "--bootstrap_server is no option"),
        ("launch", "environment", {"EVENT_TRIGGER_PARALLELISM": "0"}, "--parallelism"),
        ("page", "command", ["page", "--tokn=env:T"], "--tokn"),
    ],
)
def test_mistakes_are_found(compose: dict[str, Any], service: str, field: str, value: Any, problem: str) -> None:
    changed = deepcopy(compose)
    changed["services"][service][field] = value
    assert problem in "\n".join(problems(changed))


def read_by_compose(file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Compose itself makes of a file, which takes no engine."""
    command = ["docker-compose", "--file", str(file), "config"]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_compose_itself_reads_the_file_and_wants_the_secrets(compose: dict[str, Any], tmp_path: Path) -> None:
    secrets = {"UI_TOKEN": "t" * 16, "CRM_SIGNING_KEY": "whsec_eA=="}
    done = read_by_compose(FILE, **secrets)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() == compose["services"].keys()
    assert services["page"]["environment"]["UI_TOKEN"] == secrets["UI_TOKEN"]
    for name in secrets:
        refused = read_by_compose(FILE, **{key: value for key, value in secrets.items() if key != name})
        assert (refused.returncode, name in refused.stderr) == (1, True), refused.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("  read_only: true", "  read_onyl: true", 1))
    assert "read_onyl" in read_by_compose(wrong, **secrets).stderr


def test_the_rules_and_destinations_are_accepted(tmp_path: Path) -> None:
    folder = HERE / "compose"
    settings = parse(
        [
            *("--runner=FlinkRunner", "--bootstrap_servers=kafka:9092", f"--rules={folder / 'rules.yaml'}"),
            *(f"--destinations={folder / 'destinations.yaml'}", "--allow_private_destinations"),
        ]
    )
    assert settings.destinations is not None


def test_prometheus_takes_its_files_as_they_are_mounted(tmp_path: Path, compose: dict[str, Any]) -> None:
    for volume in compose["services"]["prometheus"]["volumes"]:
        source, target, _ = volume.split(":")
        (tmp_path / Path(target).name).write_text((FILE.parent / source).read_text())
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    targets = yaml.safe_load((tmp_path / "targets.json").read_text())[0]["targets"]
    assert {target.split(":")[0] for target in targets} <= compose["services"].keys()
