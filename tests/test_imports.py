"""Who reads argv and the environment, and which versions must be equal. pyproject.toml has the import rules."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# argv and environment belong to pipeline/. Of runners/flink these few, because they run where pipeline/ does not
# (on the workers), hand the environment on to a child process, or look for tools that the environment names. A secret
# that the launcher must not see is read where it is used.
READS_ENVIRONMENT = {
    "pipeline": None,
    "transforms.adapters.secrets": {"environ"},
    "runners.flink.worker": {"argv", "environ"},
    "runners.flink.starter": {"environ"},
    "runners.flink.local.processes": {"environ"},
    "runners.flink.artifacts": {"environ"},
}


def modules() -> dict[str, Path]:
    """Our modules that are not tests, by dotted name."""
    found = {}
    for package in ("pipeline", "transforms", "runners"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "target" not in parts and "node_modules" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_domain_can_be_used_without_beam() -> None:
    domain = [name for name in MODULES if within(name, "transforms.domain")]
    code = f"import sys\n{''.join(f'import {name};' for name in domain)}\nsys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("name", MODULES)
def test_argv_and_environment_are_read_where_they_may_be(name: str) -> None:
    rule = next((allowed for package, allowed in READS_ENVIRONMENT.items() if within(name, package)), set())
    if rule is None:
        return
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in (("sys", "argv"), ("os", "environ"), ("os", "getenv"), ("os", "environb")):
                found.add("argv" if node.attr == "argv" else "environ")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "sys"):
            found |= {alias.name for alias in node.names} & {"argv", "environ", "getenv"}
    assert found <= rule


def test_python_and_java_use_the_same_beam() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = [one.partition("==")[2] for one in project["dependencies"] if one.startswith("apache-beam")]
    pom = ElementTree.parse(ROOT / "runners/flink/connectors/pom.xml").getroot()  # noqa: S314 - our own file
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    properties = {one.tag.rpartition("}")[2]: one.text for one in pom.findall("m:properties/*", space)}
    runners = {
        dependency.findtext("m:artifactId", "", space): dependency.findtext("m:version", "", space)
        for dependency in pom.findall("m:dependencies/m:dependency", space)
        if dependency.findtext("m:groupId", "", space) == "org.apache.beam"
    }
    flink_runner = [given for name, given in runners.items() if name.startswith("beam-runners-flink-")]
    resolved = [properties.get(given.strip("${}"), given) for given in flink_runner]
    assert resolved == [pinned]


def test_the_installed_beam_is_the_pinned_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = [one.partition("==")[2] for one in project["dependencies"] if one.startswith("apache-beam")]
    assert version("apache-beam") == pinned
