"""What another machine, or another user of this one, reaches of a local stack, workers' servers included."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import grpc
import orjson
import pytest
from apache_beam.portability.api import beam_artifact_api_pb2, beam_artifact_api_pb2_grpc, beam_runner_api_pb2

from runners.flink.local.broker import LocalKafka
from tests.builders import event
from tests.flink_cluster import FlinkCluster
from tests.integration.jobs import Topics, reading, running
from tests.waiting import eventually

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
        scanned = scanned_from_another_machine({port for _, _, port in found})
        refused = [asked_for_a_file(port) for port in {port for _, _, port in found}]
    # REST and RPC of the JobManager, metrics of both, and Beam's servers: control, data, state, logging and others.
    assert len(found) > 8
    assert [entry for entry in found if not ip_address(entry[1]).is_loopback] == []
    assert scanned == set()
    # Beam's server of artifacts would read any file that the TaskManager may read.
    assert grpc.StatusCode.UNIMPLEMENTED in refused
    assert None not in refused


@contextlib.contextmanager
def another_machine() -> Iterator[tuple[str, list[str]]]:
    """A network namespace with a cable to this one: this machine's address there, and how to run a command there."""
    host, guest = (f"198.18.{os.getpid() % 250}.{number}" for number in (1, 2))
    cable = f"scan{os.getpid()}"
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as there:
        inside = ["nsenter", "--target", str(there.pid), "--net"]
        own = os.readlink("/proc/self/ns/net")
        eventually(lambda: os.readlink(f"/proc/{there.pid}/ns/net") != own, "the namespace is there")
        try:
            for command in (
                ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(there.pid)],
                ["ip", "address", "add", f"{host}/24", "dev", cable],
                ["ip", "link", "set", cable, "up"],
                [*inside, "ip", "address", "add", f"{guest}/24", "dev", "eth0"],
                [*inside, "ip", "link", "set", "eth0", "up"],
            ):
                subprocess.run(command, check=True)
            yield host, inside
        finally:
            there.kill()  # the cable goes with its namespace


def scanned_from_another_machine(ports: set[int]) -> set[int]:
    """Which of the ports another machine reaches; proves first that it would find one that it can reach."""
    if os.getuid() != 0:
        return set()  # network namespaces are made by root; that nothing else listens there is asserted, too
    with another_machine() as (host, inside), socket.create_server((host, 0)) as server:
        scan = subprocess.run([*inside, sys.executable, "-m", "tests.scan", host], capture_output=True, check=True)
        found = set(json.loads(scan.stdout))
        assert server.getsockname()[1] in found
    return found & ports


def asked_for_a_file(port: int) -> grpc.StatusCode | None:
    """How a server on the port refuses to give out a file of its process; None if it gives it out."""
    file = beam_runner_api_pb2.ArtifactFilePayload(path="/etc/hostname")
    artifact = beam_runner_api_pb2.ArtifactInformation(
        type_urn="beam:artifact:type:file:v1", type_payload=file.SerializeToString()
    )
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        service = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        try:
            list(service.GetArtifact(beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact), timeout=10))
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return]
    return None


def test_a_socket_that_anyone_can_reach_would_be_found() -> None:
    assert decoded("0100007F") == ip_address("127.0.0.1")
    assert decoded("00000000") == ip_address("0.0.0.0")
    assert decoded("0000000000000000FFFF00000100007F") == ip_address("127.0.0.1")
    assert decoded("00000000000000000000000001000000") == ip_address("::1")
    assert not decoded("0" * 32).is_loopback
