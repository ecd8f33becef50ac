"""Runs Terraform on a copy of infra/terraform, with the provider from a mirror if there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "infra" / "terraform"

# Folders that mirror providers, HOST/hashicorp/aws in them. Without any, terraform init asks the registry.
MIRRORS = (os.environ.get("EVENT_TRIGGER_TERRAFORM_MIRROR", ""), "/opt/tf-plugins", "/usr/share/terraform/plugins")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a terraform process: no CLI file of the user's, no check for updates."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    return {
        **kept,
        "TF_CLI_CONFIG_FILE": os.devnull,
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
        # Most of the time goes into reading the provider's schema; collecting garbage less often saves a third of it.
        "GOGC": "400",
        **(extra or {}),
    }


def copy(folder: Path) -> Path:
    """Copy the Terraform code to ``folder``, without terraform's own files."""
    return Path(shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*")))


def allow_destroy(state: Path) -> None:
    """Take the documented step before the root of the state can be destroyed."""
    shutil.copy(state / "destroy" / "destroy_override.tf", state)


def run(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 850,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """``terraform arguments`` in a folder, output and all; never raises for its exit code.

    Terraform gives a provider a minute to start, which may be too short on a busy machine: then it is tried again.
    """
    for _ in range(3):
        done = subprocess.run(
            ["nice", "terraform", *arguments],
            cwd=folder,
            env=environment(env),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode == 0 or "timeout while waiting for plugin to start" not in " ".join(done.stderr.split()):
            break
    return done


def init(folder: Path, *arguments: str) -> None:
    """``terraform init`` from a mirror, or from the registry if there is none."""
    mirror = next((path for path in MIRRORS if path and any(Path(path).glob("*/hashicorp/aws"))), None)
    source = [f"-plugin-dir={mirror}"] if mirror else []
    result = run(folder, "init", "-input=false", "-no-color", *source, *arguments)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@dataclass
class Report:
    """The result of ``terraform test``: the status of every run, diagnostics, the state of each applied run, and the
    changes of each planned one.
    """

    status: dict[str, str] = field(default_factory=dict)
    diagnostics: list[str] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def resources(self, run_name: str, kind: str) -> list[dict[str, Any]]:
        """Values of all managed resources of a type in a run's state, of all modules."""
        return [
            resource["values"]
            for resource in self.every(run_name)
            if (resource["mode"], resource["type"]) == ("managed", kind)
        ]

    def every(self, run_name: str) -> list[dict[str, Any]]:
        """All resources and data sources of a run's state, each with address, mode, type, values and depends_on."""
        return list(walk(self.states[run_name]["root_module"]))

    def policy(self, run_name: str, address: str) -> list[dict[str, Any]]:
        """The statements of the only policy document whose address ends with ``address``, as Terraform has them."""
        (document,) = (
            resource
            for resource in self.every(run_name)
            if resource["address"].endswith(f"aws_iam_policy_document.{address}")
        )
        return list(document["values"]["statement"])

    def output(self, run_name: str, name: str) -> Any:
        """An output of a run's state."""
        return self.states[run_name]["outputs"][name]["value"]

    def changes(self, run_name: str) -> dict[str, set[str]]:
        """The resources that a planned run changes, and their attributes that become different."""
        return changes(self.plans[run_name])


def changes(plan: Mapping[str, Any]) -> dict[str, set[str]]:
    """The resources that a plan changes, with the attributes that become different; ``create``, ``delete`` if so."""
    found = {}
    for change in (entry["change"] | {"address": entry["address"]} for entry in plan["resource_changes"]):
        if change["actions"] not in (["no-op"], ["read"]):
            before, after = change["before"] or {}, change["after"] or {}
            different = {key for key in {*before, *after} if before.get(key) != after.get(key)}
            found[change["address"]] = different if change["actions"] == ["update"] else set(change["actions"])
    return found


def run_tests(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 850) -> Report:
    """Run ``terraform test`` and parse its messages; ``-verbose`` adds states and costs seconds for each run."""
    report = Report()
    messages = folder / "messages.jsonl"  # hundreds of megabytes, because each state and plan comes with all schemas
    with messages.open("wb") as file:
        error = run(folder, "test", "-json", *arguments, env=env, timeout_s=timeout_s, stdout=file).stderr
    for line in messages.open(encoding="utf-8"):
        message = json.loads(line)
        name = message.get("@testrun", "")
        if message["type"] == "test_run" and message["test_run"].get("progress") == "complete":
            report.status[name] = message["test_run"]["status"]
        elif message["type"] == "test_state":
            report.states[name] = {**message["test_state"], "provider_schemas": None}
        elif message["type"] == "test_plan":
            report.plans[name] = {**message["test_plan"], "provider_schemas": None}
        elif message["type"] == "diagnostic" and message["diagnostic"]["severity"] == "error":
            diagnostic = message["diagnostic"]
            report.diagnostics.append(f"{name}: {diagnostic['summary']}: {diagnostic.get('detail', '')}")
        elif message["type"] in ("test_interrupt", "test_cleanup"):
            report.diagnostics.append(f"{name}: {message['@message']}")
    assert report.status, error[-3000:]
    if "skip" in report.status.values() and not report.diagnostics:  # ended by a signal, for example
        report.diagnostics.append(f"runs were skipped without a reason; terraform wrote: {error[-1000:]!r}")
    messages.unlink()
    return report


def walk(module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All resources of a state's module and its children."""
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from walk(child)


def files(user_data: str) -> dict[str, str]:
    """The files that a rendered cloud-config writes, by path."""
    return {file["path"]: file["content"] for file in yaml.safe_load(user_data)["write_files"]}
