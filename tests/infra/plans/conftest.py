"""moto as AWS, and on it the small example, moved from the layout before infra/terraform/state and applied."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import moto
from tests.infra import terraform
from tests.infra.long.machines import wait_for

# A backend in the folder, and a provider that is content with moto.
OVERRIDE = """
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style       = true
  skip_metadata_api_check = true
  max_retries             = 2
}
"""
OLD_LAYOUT = """
module "cluster" {
  source = "./cluster"
}
"""
OLD_CLUSTER = """
module "storage" {
  source = "./storage"

  name                                  = "test"
  region                                = "us-east-1"
  attach_deny_insecure_transport_policy = false
}
"""


@dataclass(frozen=True)
class Root:
    """A root configuration on moto."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run terraform without questions; ``variables`` are inputs."""
        env = {**self.env, **{f"TF_VAR_{name}": value for name, value in variables.items()}}
        return terraform.run(self.folder, *arguments, "-input=false", "-no-color", env=env, timeout_s=1200)

    def plan(self, *arguments: str, **variables: str) -> dict[str, Any]:
        """A plan as a document; it has to succeed."""
        planned = self.run("plan", "-out=plan", *arguments, **variables)
        assert planned.returncode == 0, planned.stderr[-3000:]
        shown = terraform.run(self.folder, "show", "-json", "plan", env=self.env)
        return dict(json.loads(shown.stdout))

    def apply(self, *arguments: str) -> None:
        """Apply; it has to succeed."""
        applied = self.run("apply", "-auto-approve", *arguments)
        assert applied.returncode == 0, applied.stdout[-2000:] + applied.stderr[-3000:]


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An empty AWS account of moto's; the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "PYTHONPATH": str(moto.packages())},
        stdout=log,
        stderr=log,
    )

    def answers() -> bool:
        try:
            return requests.get(f"{endpoint}/moto-api/", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_for(answers, "moto answers", 120)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "TF_VAR_name": "test",
            "TF_VAR_region": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()
        log.close()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, as it is shipped."""
    return terraform.copy(tmp_path_factory.mktemp("plans") / "terraform")


@pytest.fixture(scope="session")
def old_state(account: dict[str, str], tree: Path) -> Path:
    """Terraform's state of a cluster whose key and buckets are its own, as they were; they exist on moto."""
    old = tree.parent / "old"
    storage = old / "cluster" / "storage"
    storage.mkdir(parents=True)
    (old / "main.tf").write_text(OLD_LAYOUT + 'provider "aws" {\n  region = "us-east-1"\n}\n')
    (old / "override.tf").write_text(OVERRIDE)
    (old / "cluster" / "main.tf").write_text(OLD_CLUSTER)
    code = (tree / "state" / "main.tf").read_text()
    code = re.sub(r'^provider "aws" \{.*?^\}\n', "", code, flags=re.MULTILINE | re.DOTALL)
    (storage / "main.tf").write_text(code.replace("prevent_destroy = true", "prevent_destroy = false"))
    shutil.copy(tree / "state" / "variables.tf", storage)
    root = Root(old, account)
    terraform.init(old)
    root.apply()
    return old / "terraform.tfstate"


@pytest.fixture(scope="session")
def state(account: dict[str, str], old_state: Path, tree: Path) -> Root:
    """The root of the state, initialized; nothing is imported yet."""
    folder = tree / "state"
    (folder / "test_override.tf").write_text(OVERRIDE)
    terraform.init(folder)
    return Root(folder, {**account, "TF_VAR_attach_deny_insecure_transport_policy": "false"})


@pytest.fixture(scope="session")
def example(account: dict[str, str], old_state: Path, tree: Path) -> Root:
    """The small example with the old state, initialized."""
    release = tree.parent / "release"
    shutil.copytree(tree / "tests" / "fixtures" / "release", release)
    for artifact in json.loads((release / "manifest.json").read_text()).values():
        (release / artifact["file"]).write_text("content")
    folder = tree / "examples" / "small"
    (folder / "test_override.tf").write_text(OVERRIDE)
    shutil.copy(old_state, folder)
    terraform.init(folder)
    inputs = {
        "ami_id": "ami-0123456789abcdef0",
        "release_dir": str(release),
        "kafka_bootstrap_servers": "10.1.0.1:9094",
        "kafka_cidrs": '["10.1.0.0/24"]',
    }
    return Root(folder, {**account, **{f"TF_VAR_{name}": value for name, value in inputs.items()}})
