"""Kafka or Flink that does not answer is one line with the address and what to do."""

from __future__ import annotations

import pytest

from pipeline.cli.main import main
from runners.flink.local.processes import free_ports

AT_KAFKA = "start the broker, open the way to it or correct --bootstrap_servers"
AT_FLINK = "start it, open the way to it or correct --flink_master"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["dead-letters", "list"],
        ["why", "--user=u1", "--decisions_topic=d"],
        ["destinations", "list", "--control_topic=c"],
        ["destinations", "disable", "crm", "--control_topic=c"],
        ["rules", "status", "--rules_topic=r"],
    ],
    ids=" ".join,
)
def test_an_absent_broker(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main([*command, f"--bootstrap_servers=127.0.0.1:{port}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f": Kafka at 127.0.0.1:{port} does not answer: {AT_KAFKA}")


@pytest.mark.parametrize("command", [["savepoint"], ["cancel", "--yes"]], ids=" ".join)
def test_an_absent_flink(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main([*command, f"--flink_master=127.0.0.1:{port}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: Flink at http://127.0.0.1:{port} does not answer: Connection refused: {AT_FLINK}"
