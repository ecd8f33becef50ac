"""One error names all missing programs; as root with apt they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.infra import tools

WANTED = {"a-linter": "linter", "a-checker": "checker"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH; the user is not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(folder, "terraform", """echo '{"terraform_version": "1.11.4"}'""")
    program(folder, "kubectl", """echo '{"clientVersion": {"minor": "32+", "gitVersion": "v1.32.4"}}'""")
    return folder


def program(folder: Path, name: str, script: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def error() -> str:
    with pytest.raises(tools.ToolsError) as raised:
        tools.provide(WANTED)
    return str(raised.value)


def test_nothing_is_installed_if_nothing_is_missing(path: Path) -> None:
    for name in WANTED:
        program(path, name)
    program(path, "apt-get", "exit 1")
    tools.provide(WANTED)


def test_one_error_names_all_missing_programs(path: Path) -> None:
    for name in tools.GIVEN:
        (path / name).unlink()
    message = error()
    assert "terraform is not on the PATH: install 1.11 or newer" in message
    assert "kubectl is not on the PATH: install 1.27 or newer" in message
    assert (
        "Not on the PATH: a-linter, a-checker; as root on Debian or Ubuntu: make infra-tools (checker linter)"
        in message
    )
    assert "pytest --ignore=tests/infra --ignore=tests/kubernetes -m 'not browser'" in message


@pytest.mark.parametrize(("version", "refused"), [("1.10.9", True), ("1.11.0-rc1", False), ("2.0.0", False)])
def test_an_older_terraform_is_refused(path: Path, version: str, refused: bool) -> None:
    for name in WANTED:
        program(path, name)
    program(path, "terraform", f"""echo '{{"terraform_version": "{version}"}}'""")
    if refused:
        assert f"terraform is {version}: install 1.11 or newer" in error()
    else:
        tools.provide(WANTED)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("""echo '{"clientVersion": {"gitVersion": "v1.20.2"}}'""", "kubectl is 1.20.2: install 1.27 or newer"),
        ("echo 'unknown flag' >&2; exit 1", "kubectl version --client -o=json does not tell its version: install 1.27"),
        ("echo '{}'", "does not tell its version"),
    ],
)
def test_a_kubectl_that_cannot_render_the_manifests_is_refused(path: Path, script: str, problem: str) -> None:
    for name in WANTED:
        program(path, name)
    program(path, "kubectl", script)
    assert problem in error()


def test_root_installs_missing_programs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    log = path / "log"
    programs = "\n".join(f"printf '#!/bin/sh' >{path}/{name}; /bin/chmod 755 {path}/{name}" for name in WANTED)
    program(path, "apt-get", f'echo "$@" >>{log}\ncase "$*" in *install*) {programs};; esac')
    tools.provide(WANTED)
    update, install = log.read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends checker linter")


def test_a_failing_installation_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(path, "apt-get", "echo 'E: no such archive' >&2; exit 100")
    assert "Not on the PATH: a-linter, a-checker; apt-get failed: E: no such archive." in error()


def test_root_without_apt_gets_the_error_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "Not on the PATH: a-linter, a-checker; as root on Debian or Ubuntu" in error()


def test_what_the_image_needs_is_named_without_a_word_about_terraform(path: Path) -> None:
    (path / "terraform").unlink()
    program(path, "podman")
    with pytest.raises(tools.ToolsError) as raised:
        tools.provide_for_image()
    assert str(raised.value) == (
        "Not on the PATH: mmdebstrap, buildah, runc (Debian's buildah mmdebstrap runc): not root on Debian or Ubuntu."
    )
    for name in tools.IMAGE:
        program(path, name)
    tools.provide_for_image()
