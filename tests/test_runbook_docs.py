"""The program accepts the commands of docs/runbook.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.launch.options import parse
from runners.flink.local.processes import free_ports
from tests.docs.parsers import parsed

PAGE = Path(__file__).parent.parent / "docs" / "runbook.md"
OPTIONS = "--bootstrap_servers=broker:9092 --rules=rules --delivery_guarantee=EXACTLY_ONCE"
COMMANDS = sorted(
    {
        line.partition("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    }
)


def test_there_are_commands_for_each_procedure() -> None:
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    with_commands = [section.partition("\n")[0] for section in sections if "```sh" in section]
    assert with_commands == [
        "Deploy a job", "Upgrade a job", "Roll back a job", "Rescale a job", "Lost checkpoint", "Poisoned topic"
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_the_program_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled = command.replace("OPTIONS", OPTIONS).replace("timestamp_ms=…", "timestamp_ms=1")
    program, *arguments = shlex.split(filled.replace("PARTITION/OFFSET", "0/1"))
    assert program == "event-trigger"
    name = arguments[0]
    if name.startswith("--"):
        assert parse(arguments).flink_master == "HOST:8081"
    elif name in ("doctor", "status"):
        flags = [argument for argument in arguments[1:] if argument != "--once"]
        assert parse(flags, rules_required=False).flink_master == "HOST:8081"
    elif name == "topics":
        assert parse(["--runner=FlinkRunner", *arguments[2:]]).bootstrap_servers == "broker:9092"
    elif name == "dead-letters":
        assert parsed(arguments) == ("dead-letters", None)
    else:
        # With a cluster that is not there: 1, where an option that cannot be used would be 2.
        closed = f"127.0.0.1:{free_ports(1)[0]}"
        assert name in ("savepoint", "savepoints", "resume", "cancel")
        if "--savepoint_path" not in filled:
            assert main([argument.replace("HOST:8081", closed) for argument in arguments]) == 1
            assert closed in capsys.readouterr().err
        else:
            rest = [argument for argument in arguments[1:] if not argument.startswith("--from_job")]
            assert parse(["--runner=FlinkRunner", *rest]).savepoint_path is not None
