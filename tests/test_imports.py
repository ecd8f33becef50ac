"""Who may import whom (DESIGN, section 4), and that what has to be one release is."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("pipeline", "transforms", "runners", "tests")

# Package -> what of ours it may import. The longest name that fits a module rules it.
ALLOWED = {
    "pipeline": ("pipeline", "transforms", "runners.flink"),
    "transforms": ("transforms.domain",),
    "transforms.domain": ("transforms.domain",),
    "runners": ("runners",),
}

# argv and environment belong to pipeline/. Of runners/flink these few, because they run where pipeline/ does not
# (on the workers), hand the environment on to a child process, or look for tools that the environment names. A secret
# that the launcher must not see is read where it is used.
READS_ENVIRONMENT = {
    "pipeline": None,
    "transforms.domain.secret_references": {"environ"},
    "runners.flink.worker_boot": {"argv", "environ"},
    "runners.flink.processes": {"environ"},
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


def imports(name: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; ``from a import b`` is ``a.b`` if that is a module."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value
                elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
                    yield str(argument.values[0].value).rstrip(".")


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_there_is_something_to_check() -> None:
    assert {"pipeline.graph", "transforms.handle", "transforms.domain.shard", "runners.flink.rest"} <= set(MODULES)
    assert "transforms.domain.view" in set(imports("transforms.domain.shard"))
    assert "transforms.domain.journal" in set(imports("transforms.handle"))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    layer = max((package for package in ALLOWED if within(name, package)), key=len)
    ours = [one for one in imports(name) if one.split(".")[0] in OURS]
    assert [one for one in ours if not any(within(one, allowed) for allowed in ALLOWED[layer])] == []


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "transforms.domain")])
def test_the_domain_does_not_know_beam(name: str) -> None:
    assert [one for one in imports(name) if within(one, "apache_beam")] == []


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
