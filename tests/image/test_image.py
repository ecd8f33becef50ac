"""What starts in a container by its argument, and that the Containerfile makes the image of `make image`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.image import __main__ as image
from infra.image.__main__ import ENVIRONMENT, HERE, PACKAGES, USER

ENTRYPOINT = HERE / "root" / "docker-entrypoint.sh"
HEALTH = HERE / "root" / "opt" / "event-trigger" / "bin" / "health"
FLINK_NODE = HERE.parent / "release" / "flink-node.sh"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that print what they are called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("flink-node", "event-trigger", "other"):
        program(folder, name, f"printf '%s' {name}; printf ' [%s]' \"$@\"; echo")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def start(
    programs: Path, *arguments: str, script: Path = ENTRYPOINT, **variables: str
) -> subprocess.CompletedProcess[str]:
    text = script.read_text().replace("/data/", f"{programs.parent}/data/")
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
    if not arguments:
        assert done.stdout.startswith("event-trigger")
    else:
        assert (done.returncode, done.stdout.strip()) == (0, started)


def test_what_is_neither_a_role_nor_a_program_is_named(programs: Path) -> None:
    done = start(programs, "taskmanger")
    assert done.returncode == 127
    assert done.stderr == (
        "'taskmanger' is no role and no program; "
        "allowed: jobmanager, taskmanager, launch, page, or a program such as event-trigger\n"
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
def test_a_container_is_unhealthy_if_the_job_is_down(programs: Path, verdict: int, code: int) -> None:
    program(programs, "event-trigger", f'[ "$*" = "status --once" ] && exit {verdict}; exit 99')
    assert start(programs, script=HEALTH, EVENT_TRIGGER_FLINK_MASTER="jobmanager:8081").returncode == code


def test_a_container_that_knows_no_flink_has_no_job_to_judge(programs: Path) -> None:
    program(programs, "event-trigger", "exit 2")
    done = start(programs, script=HEALTH)
    assert (done.returncode, done.stdout) == (0, "EVENT_TRIGGER_FLINK_MASTER is not set: there is no job to judge\n")


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


def test_the_bill_of_materials_has_debians_and_pythons_packages_and_jars(tmp_path: Path) -> None:
    root, status = tmp_path / "root", tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: tini\nStatus: install ok\nVersion: 0.19.0-1\nDescription: x\n y\n\nPackage: zlib1g\nVersion: 1:1.2\n"
    )
    with tarfile.open(tmp_path / "debian.tar", "w") as archive:
        archive.add(status, "./var/lib/dpkg/status")
    metadata = root / "site-packages" / "six-1.16.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\n\nText: no header\n")
    for jar in ("lib/flink-dist-1.19.3.jar", "connectors/event-trigger-connectors.jar"):
        (root / jar).parent.mkdir()
        (root / jar).touch()
    (root / "lib" / "linked-2.jar").symlink_to("/nowhere.jar")
    bill = image.bill_of_materials(tmp_path / "debian.tar", root, "0.2.0")
    assert [component["purl"] for component in bill["components"]] == [
        "pkg:deb/debian/tini@0.19.0-1",
        "pkg:deb/debian/zlib1g@1:1.2",
        "pkg:generic/event-trigger-connectors.jar",
        "pkg:generic/flink-dist-1.19.3.jar",
        "pkg:pypi/six@1.16.0",
    ]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")


def test_the_bill_names_no_jar_twice_and_gives_ours_the_release(tmp_path: Path) -> None:
    assert image.jar_version("flink-dist-1.19.3") == ("flink-dist", "1.19.3")
    assert image.jar_version("beam-vendor-grpc-1_69_0-0.1") == ("beam-vendor-grpc-1_69_0", "0.1")
    assert image.jar_version("event-trigger-connectors") == ("event-trigger-connectors", "")
    assert image.jar_version("flink-connector-kafka-3.3.0-1.19") == ("flink-connector-kafka", "3.3.0-1.19")


def test_shellcheck_accepts_the_scripts() -> None:
    bin_folder = HERE / "root" / "opt" / "event-trigger" / "bin"
    scripts = [ENTRYPOINT, FLINK_NODE, *bin_folder.iterdir()]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
