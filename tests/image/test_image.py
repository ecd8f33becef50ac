"""What starts in a container by its argument, and that the Containerfile makes the image of `make image`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.image import __main__ as image
from infra.image.__main__ import ENVIRONMENT, HERE, PACKAGES, USER
from infra.release import bill

ENTRYPOINT = HERE / "root" / "docker-entrypoint.sh"
HEALTH = HERE / "root" / "opt" / "event-trigger" / "bin" / "health"
FLINK_NODE = HERE.parent / "release" / "flink-node.sh"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that print what they are called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "data").mkdir()
    for name in ("flink-node", "event-trigger", "other"):
        program(folder, name, f"printf '%s' {name}; printf ' [%s]' \"$@\"; echo")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def start(
    programs: Path, *arguments: str, script: Path = ENTRYPOINT, **variables: str
) -> subprocess.CompletedProcess[str]:
    text = script.read_text().replace("/data", f"{programs.parent}/data").replace("/tmp/passwd", f"{programs}/passwd")  # noqa: S108
    copy = programs.parent / "script"
    copy.write_text(text)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "FLINK_LOG_DIR": str(programs.parent / "log"), **variables}
    command = [shutil.which("bash") or "bash", str(copy), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        (["jobmanager"], "flink-node [jobmanager]"),
        # What the Kubernetes operator starts with HA in standalone mode.
        (
            ["jobmanager", "-D", "jobmanager.rpc.address=10.0.0.7"],
            "flink-node [jobmanager] [-D] [jobmanager.rpc.address=10.0.0.7]",
        ),
        (["taskmanager"], "flink-node [taskmanager]"),
        (["launch", "--rules=a b.yaml"], "event-trigger [run] [--runner=FlinkRunner] [--rules=a b.yaml]"),
        (["page", "--token=env:T"], "event-trigger [ui] [--address=0.0.0.0] [--token=env:T]"),
        (["event-trigger", "rules", "check", "/rules"], "event-trigger [rules] [check] [/rules]"),
        (["other", "x y"], "other [x y]"),
        (["--version"], "event-trigger [--version]"),
        ([], "event-trigger [--help]"),
    ],
)
def test_the_first_argument_is_the_role(programs: Path, arguments: list[str], started: str) -> None:
    done = start(programs, *arguments)
    assert (done.returncode, done.stdout.strip()) == (0, started)


def test_what_is_neither_a_role_nor_a_program_is_named(programs: Path) -> None:
    done = start(programs, "taskmanger")
    assert done.returncode == 127
    assert done.stderr == (
        "'taskmanger' is no role and no program; "
        "allowed: jobmanager, taskmanager, launch, page, or a program such as event-trigger\n"
    )


@pytest.mark.parametrize("role", ["jobmanager", "taskmanager"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(programs: Path, role: str) -> None:
    (programs.parent / "data").rmdir()
    done = start(programs, role)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"user {os.getuid()} cannot write to {programs.parent}/data (No such file or directory); "
        "allowed: a volume or a tmpfs with room for this user or group 0\n"
    )


def test_nothing_is_left_where_it_was_tried_whether_a_folder_can_be_written(programs: Path) -> None:
    start(programs, "jobmanager")
    assert {path.name for path in (programs.parent / "data").iterdir()} == {"tmp", "rocksdb"}


def test_a_user_without_a_name_gets_one(programs: Path) -> None:
    """OpenShift chooses the user; Java and Hadoop ask for its name."""
    program(programs, "id", 'case "$1" in -un) exit 1;; *) echo 12345;; esac')
    program(programs, "other", 'echo "$LD_PRELOAD $NSS_WRAPPER_GROUP"; cat "$NSS_WRAPPER_PASSWD"')
    done = start(programs, "other")
    assert done.stdout == (
        f"libnss_wrapper.so /etc/group\nflink:x:12345:12345::{programs.parent}/data:/usr/sbin/nologin\n"
    )


def test_settings_of_a_variable_follow_the_role(programs: Path) -> None:
    properties = "# mine\nrest.port: 8099\n\n  state.checkpoints.dir:   s3://b/c d  \n"
    done = start(programs, "jobmanager", "-D", "x=1", FLINK_PROPERTIES=properties)
    assert done.stdout.strip() == (
        "flink-node [jobmanager] [-D] [rest.port=8099] [-D] [state.checkpoints.dir=s3://b/c d] [-D] [x=1]"
    )


@pytest.mark.parametrize("line", ["rest.port=8099", "rest.port:8099", "rest.port:", "- a: b"])
def test_a_wrong_setting_is_refused_with_its_line(programs: Path, line: str) -> None:
    done = start(programs, "taskmanager", FLINK_PROPERTIES=f"a.b: c\n{line}\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"FLINK_PROPERTIES: '{line}' is no setting; allowed: 'key: value'\n"


@pytest.mark.parametrize(("verdict", "code"), [(0, 0), (1, 0), (2, 1)])
@pytest.mark.parametrize("variable", ["EVENT_TRIGGER_FLINK_MASTER", "EVENT_TRIGGER_CONFIG"])
def test_a_container_is_unhealthy_if_the_job_is_down(programs: Path, variable: str, verdict: int, code: int) -> None:
    program(programs, "event-trigger", f'[ "$*" = "status --once" ] && exit {verdict}; exit 99')
    assert start(programs, script=HEALTH, **{variable: "given"}).returncode == code


def test_a_container_that_knows_no_flink_has_no_job_to_judge(programs: Path) -> None:
    program(programs, "event-trigger", "exit 2")
    done = start(programs, script=HEALTH)
    message = "neither EVENT_TRIGGER_FLINK_MASTER nor EVENT_TRIGGER_CONFIG is set: there is no job to judge\n"
    assert (done.returncode, done.stdout) == (0, message)


def test_flink_node_says_in_one_line_which_setting_is_refused(tmp_path: Path) -> None:
    home, folder = tmp_path / "flink", tmp_path / "bin"
    for path in (home / "bin", home / "lib", folder):
        path.mkdir(parents=True)
    shutil.copy(FLINK_NODE, home / "bin" / "flink-node")
    (home / "lib" / "flink-dist-1.jar").touch()
    answer = (
        "INFO  [] - Loading configuration property: a, b\n"
        'Exception in thread "main" org.apache.flink.IllegalConfigurationException: Configuration failed.\n'
        "\tat org.apache.flink.Utils.main(Utils.java:56)\n"
        "Caused by: java.lang.IllegalArgumentException: Could not parse value 'ten' for key 'a.b'.\n\t... 9 more\n"
    )
    (tmp_path / "answer").write_text(answer)
    program(folder, "java", f"cat {tmp_path / 'answer'} >&2; exit 1")
    done = subprocess.run(
        ["bash", str(home / "bin" / "flink-node"), "jobmanager"],
        env={"PATH": f"{folder}:/usr/bin:/bin", "FLINK_CONF_DIR": str(tmp_path), "FLINK_LOG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "flink-node: settings are refused: Configuration failed. Could not parse value 'ten' for key 'a.b'.\n",
    )


@pytest.mark.parametrize(("file", "quote"), [("config.yaml", '"'), ("flink-conf.yaml", "")])
def test_flink_node_takes_settings_and_either_configuration_file(tmp_path: Path, file: str, quote: str) -> None:
    """Flink 1.19 reads both; the Kubernetes operator writes the older one, and a logging file of its own name."""
    home, conf, folder = tmp_path / "flink", tmp_path / "conf", tmp_path / "bin"
    for path in (home / "bin", home / "lib", conf, folder):
        path.mkdir(parents=True)
    shutil.copy(FLINK_NODE, home / "bin" / "flink-node")
    for jar in ("a.jar", "flink-dist-1.jar"):
        (home / "lib" / jar).touch()
    left_over = tmp_path / "tmp" / "left over by one that was killed"
    left_over.mkdir(parents=True)
    (conf / file).write_text(f"a: b\nio.tmp.dirs: {quote}{tmp_path / 'tmp'}{quote}\n")
    (conf / "log4j-console.properties").touch()
    memory = "echo BASH_JAVA_UTILS_EXEC_RESULT:-Xmx7m; echo BASH_JAVA_UTILS_EXEC_RESULT:-D computed=1"
    program(folder, "java", f'case "$*" in *BashJavaUtils*rest.port=1*) {memory};; *) printf "%s\\n" "$@";; esac')
    done = subprocess.run(
        ["bash", str(home / "bin" / "flink-node"), "jobmanager", "-D", "rest.port=1"],
        env={"PATH": f"{folder}:/usr/bin:/bin", "FLINK_CONF_DIR": str(conf), "FLINK_LOG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "-Xmx7m"
    assert not left_over.exists()
    assert lines[-4:] == ["-D", "computed=1", "-D", "rest.port=1"]
    assert f"-Dlog4j.configurationFile={conf}/log4j-console.properties" in lines
    # Kubernetes mounts a folder of its own over conf/.
    assert f"@{home}/bin/java-options" in lines


def of_containerfile() -> Mapping[str, str]:
    """The instructions of the Containerfile, continued lines joined; the last of each name."""
    text = re.sub(r"\\\n\s*", "", (HERE / "Containerfile").read_text())
    return dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_the_containerfile_makes_the_same_image() -> None:
    file = of_containerfile()
    assert dict(pair.split("=", 1) for pair in file["ENV"].split()) == dict(ENVIRONMENT)
    packages = re.search(r"--no-install-recommends (.*?) &&", file["RUN"])
    assert packages is not None
    assert set(packages[1].split()) == set(PACKAGES)
    config = list(image._config("1"))
    options = {config[at]: config[at + 1] for at in range(0, len(config), 2)}
    assert json.loads(file["ENTRYPOINT"]) == json.loads(options["--entrypoint"])
    assert json.loads(file["CMD"]) == [options["--cmd"]]
    assert (file["USER"], file["WORKDIR"]) == (options["--user"], options["--workingdir"]) == (f"{USER}:{USER}", "/tmp")  # noqa: S108
    assert (file["VOLUME"], file["STOPSIGNAL"]) == (options["--volume"], options["--stop-signal"])
    health = " ".join(
        f"--{name}={options[f'--healthcheck-{name}']}" for name in ("interval", "timeout", "start-period", "retries")
    )
    assert file["HEALTHCHECK"] == f"{health} {options['--healthcheck']}"


def test_the_bill_of_materials_is_in_the_image_and_has_jars_once_with_what_is_inside(tmp_path: Path) -> None:
    home, lib = tmp_path / "opt" / "event-trigger", tmp_path / "opt" / "flink" / "lib"
    metadata = home / "site-packages" / "six-1.16.0.dist-info" / "METADATA"
    for folder in (metadata.parent, home / "connectors", lib):
        folder.mkdir(parents=True)
    metadata.write_text("Name: six\nVersion: 1.16.0\nLicense: MIT\n")
    with zipfile.ZipFile(home / "connectors" / "event-trigger-connectors.jar", "w") as jar:
        for artifact, version in (("event-trigger-connectors", "0.2.0"), ("inner", "1")):
            properties = f"groupId=g\nartifactId={artifact}\nversion={version}\n"
            jar.writestr(f"META-INF/maven/g/{artifact}/pom.properties", properties)
    (lib / "event-trigger-connectors.jar").symlink_to("/opt/event-trigger/connectors/event-trigger-connectors.jar")
    image._write_bill(tmp_path, [bill.Component("deb", "debian:tini", "0.19.0-1", "MIT")])
    document = json.loads((home / "bom.cdx.json").read_text())
    assert document["metadata"]["component"]["type"] == "container"
    found = {component["purl"]: component for component in document["components"]}
    assert list(found) == [
        "pkg:deb/debian/tini@0.19.0-1",
        "pkg:maven/g/event-trigger-connectors@0.2.0",
        "pkg:pypi/six@1.16.0",
    ]
    ours = found["pkg:maven/g/event-trigger-connectors@0.2.0"]
    assert [part["purl"] for part in ours["components"]] == ["pkg:maven/g/inner@1"]
    assert len(ours["hashes"][0]["content"]) == 64
    assert "MIT,pkg:deb/debian/tini@0.19.0-1" in (home / "licences.csv").read_text().splitlines()


def test_shellcheck_accepts_the_scripts() -> None:
    bin_folder = HERE / "root" / "opt" / "event-trigger" / "bin"
    scripts = [ENTRYPOINT, FLINK_NODE, *bin_folder.iterdir()]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
