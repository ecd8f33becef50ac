"""No process of a local stack listens where another machine could reach it, workers' servers included."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import orjson
import pytest

from runners.flink.local.broker import LocalKafka
from tests.builders import event
from tests.flink_cluster import FlinkCluster
from tests.integration.jobs import Topics, reading, running

pytestmark = pytest.mark.stack

_LISTENS = "0A"


def listening(pids: Iterable[int]) -> Iterator[tuple[str, str, int]]:
    """Program, address and port of every TCP socket on which one of the processes listens."""
    for pid in pids:
        inodes = set()
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(file))
            except FileNotFoundError:  # closed meanwhile
                continue
            if found:
                inodes.add(found[1])
        program = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-200:]
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == _LISTENS and inode in inodes:
                    address, _, port = local.partition(":")
                    yield program, str(decoded(address)), int(port, 16)


def decoded(digits: str) -> IPv4Address | IPv6Address:
    """An address of /proc/net: words of 32 bits, each with its lowest byte first."""
    words = [bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8)]
    address = ip_address(b"".join(words))
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def descendants(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in found:
            yield from descendants(int(child))


def test_a_running_job_listens_on_this_machine_only(kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(kafka)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: welcome\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n")
    topics.produce([(b"alice", orjson.dumps(event("alice", event_id="e1")))])
    with running(flink, topics, rules), reading(kafka, topics.actions) as actions:
        actions.until(1, 120)  # so that the workers run
        own = [pid for root in [*flink.job_manager_pids, *flink.task_manager_pids] for pid in descendants(root)]
        found = list(listening(own))
    # REST and RPC of the JobManager, metrics of both, and Beam's servers: control, data, state, logging and others.
    assert len(found) > 8
    assert [entry for entry in found if not ip_address(entry[1]).is_loopback] == []


def test_a_socket_that_anyone_can_reach_would_be_found() -> None:
    assert decoded("0100007F") == ip_address("127.0.0.1")
    assert decoded("00000000") == ip_address("0.0.0.0")
    assert decoded("0000000000000000FFFF00000100007F") == ip_address("127.0.0.1")
    assert decoded("00000000000000000000000001000000") == ip_address("::1")
    assert not decoded("0" * 32).is_loopback
