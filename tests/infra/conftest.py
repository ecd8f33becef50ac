"""One copy of the Terraform code, initialized once, and one run of its tests that all checks share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.infra import terraform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Terraform takes minutes on a machine that is busy with other tests."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/terraform, initialized; Terraform may destroy the state in it."""
    assert shutil.which("terraform"), "terraform is not on the PATH; needed: 1.11 or newer"
    folder = terraform.copy(tmp_path_factory.mktemp("infra") / "terraform")
    terraform.allow_destroy(folder / "state")
    terraform.init(folder, "-backend=false")
    return folder


@pytest.fixture(scope="session")
def audited(code: Path) -> terraform.Report:
    """Key and buckets, the largest tier, and everything that can be switched on: applied with a mocked provider."""
    return terraform.run_tests(
        code, "-verbose", *(f"-filter=tests/{name}.tftest.hcl" for name in ("state", "large", "options"))
    )
