"""One copy of the Terraform code, initialized once, and one run of its tests that all checks share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.infra import terraform


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/terraform, initialized."""
    assert shutil.which("terraform"), "terraform is not on the PATH; needed: 1.11 or newer"
    folder = terraform.copy(tmp_path_factory.mktemp("infra") / "terraform")
    terraform.init(folder)
    return folder


@pytest.fixture(scope="session")
def audited(code: Path) -> terraform.Report:
    """The largest tier and everything that can be switched on, applied with a mocked provider, states included."""
    return terraform.run_tests(code, "-verbose", "-filter=tests/large.tftest.hcl", "-filter=tests/options.tftest.hcl")
