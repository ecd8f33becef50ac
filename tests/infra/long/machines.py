"""Machines for the real boot: systemd-nspawn containers, each in a network namespace of its own on one bridge.

All of it runs in namespaces of its own (``contained``): nothing of this machine's network is touched, and processes,
mounts and network namespaces end with it, however it ends. Loop devices have no namespace; ``clear`` finds them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "10.77.255.1"  # moto, Kafka and the metadata service, seen from the machines
METADATA = "169.254.169.254"
_CLONE_NEWNET = 0x40000000


def shell(*command: str | Path) -> str:
    """The output of a command; fails the test with the output if the command fails."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float) -> Any:
    """The first true value of ``condition``; fails after the deadline with ``what``, which may be a function."""
    give_up = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.5)
    return value


def contained(*command: str) -> list[str]:
    """The command in namespaces of network, mounts and processes; it and its children die with their starter."""
    spaces = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, *command]


def clear(folder: Path) -> None:
    """Remove the folder of an earlier run's machines, with the loop devices that a killed run left on its files."""
    listed = json.loads(shell("losetup", "--list", "--json", "--output", "NAME,BACK-FILE") or '{"loopdevices": []}')
    for device in listed["loopdevices"]:
        if str(device["back-file"]).startswith(f"{folder}/"):
            shell("losetup", "--detach", device["name"])
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def lan() -> Iterator[None]:
    """A bridge 10.77.0.0/16 with HOST and the metadata address on it."""
    # Names of network namespaces are files, which would stay behind.
    Path("/run/netns").mkdir(exist_ok=True)
    shell("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    shell("ip", "link", "set", "lo", "up")
    shell("ip", "link", "add", "lan0", "type", "bridge")
    shell("ip", "address", "add", f"{HOST}/16", "dev", "lan0")
    shell("ip", "address", "add", f"{METADATA}/32", "dev", "lan0")
    shell("ip", "link", "set", "lan0", "up")
    try:
        yield
    finally:
        shell("ip", "link", "del", "lan0")


@dataclass
class Machine:
    """One EC2 instance: its user data boots on a copy-on-write layer over the root file system."""

    name: str
    instance_id: str
    address: str
    user_data: bytes
    volumes_gib: dict[str, int]
    rootfs: Path
    folder: Path
    target_lifecycle_state: str = "InService"
    _process: subprocess.Popen[bytes] | None = None
    _loops: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return f"event-trigger-{self.name}"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def start(self) -> None:
        """Power on, as EC2 would: empty volumes on their devices, user data, address."""
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        layers = f"lowerdir={self.rootfs},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        shell("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        seed = self.root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "meta-data").write_text(f"instance-id: {self.instance_id}\nlocal-hostname: {self.name}\n")
        (seed / "user-data").write_bytes(self.user_data)
        link = f"v-{self.name}"
        shell("ip", "netns", "add", self.namespace)
        shell("ip", "link", "add", link, "type", "veth", "peer", "name", "host0", "netns", self.namespace)
        shell("ip", "link", "set", link, "master", "lan0", "up")
        for command in (
            f"address add {self.address}/16 dev host0",
            "link set lo up",
            "link set host0 up",
            f"route add default via {HOST}",
        ):
            shell("ip", "-n", self.namespace, *command.split())
        binds = []
        for device, gib in self.volumes_gib.items():
            image = self.folder / device.replace("/", "-")
            with image.open("wb") as file:
                file.truncate(gib << 30)
            self._loops.append(shell("losetup", "--find", "--show", image).strip())
            binds.append(f"--bind={self._loops[-1]}:{device}")
        with (self.folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"),
                    *(f"--machine={self.name}", f"--directory={self.root}"),
                    *(f"--network-namespace-path=/run/netns/{self.namespace}", *binds),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        wait_for(lambda: self._leader(), f"{self.name}: {self.console()}", 120)

    def _leader(self) -> int | None:
        """Process id, in this namespace, of the machine's process 1."""
        assert self._process is not None
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(ids) > 1 and ids[-1] == "1":
                    return pid
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += [int(child) for child in (task / "children").read_text().split()]
        return None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the machine."""
        inside = [
            "nsenter",
            "-t",
            str(self._leader()),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "--wd=/",
        ]
        return subprocess.run(
            [*inside, *command], capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL, check=False
        )

    def console(self, lines: int = 30) -> str:
        """The last lines of the machine's console."""
        path = self.folder / "console.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def journal(self, lines: int = 40) -> str:
        """The last lines of its journal, for a failing test's message."""
        return self.run("journalctl", "--no-pager", "-n", str(lines)).stdout

    def kill(self) -> None:
        """Power off: everything in the machine ends at once, without any shutdown."""
        leader = self._leader()
        assert leader is not None
        shell("ip", "-n", self.namespace, "link", "set", "host0", "down")
        os.kill(leader, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)

    def remove(self) -> None:
        """Leave nothing behind, whatever state the machine is in. May be called twice."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                self.kill()
            self._process.kill()
            self._process.wait(30)
        subprocess.run(["umount", "--lazy", self.root], capture_output=True, check=False)
        while self._loops:
            subprocess.run(["losetup", "--detach", self._loops.pop()], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)


@contextlib.contextmanager
def metadata_service(machines: dict[str, Machine]) -> Iterator[None]:
    """IMDSv2 for all machines, which it identifies by their addresses. Without a session token it responds with 401."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, "the-token") if self.path == "/latest/api/token" else self._answer(404, "")

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") != "the-token":
                return self._answer(401, "")
            machine = machines[self.client_address[0]]
            credentials = {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": "testing",
                "SecretAccessKey": "testing",
                "Token": "testing",
                "LastUpdated": "2026-01-01T00:00:00Z",
                "Expiration": "2036-01-01T00:00:00Z",
            }
            known = {
                "instance-id": machine.instance_id,
                "local-ipv4": machine.address,
                "placement/region": "us-east-1",
                "placement/availability-zone": "us-east-1a",
                "autoscaling/target-lifecycle-state": machine.target_lifecycle_state,
                "iam/security-credentials/": machine.name,
                "iam/security-credentials": machine.name,
                f"iam/security-credentials/{machine.name}": json.dumps(credentials),
            }
            entry = self.path.removeprefix("/latest/meta-data/")
            return self._answer(200, known[entry]) if entry in known else self._answer(404, "")

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            if text == "the-token":
                self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((METADATA, 80), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def tunnel(namespace: str, port: int, local_port: int) -> Iterator[None]:
    """Like an SSM session: forwards 127.0.0.1:local_port here to 127.0.0.1:port inside the machine of a namespace."""
    listener = socket.create_server(("127.0.0.1", local_port))

    def connect() -> socket.socket:
        # Only this thread enters the namespace; a socket stays in the one that it was made in.
        with open(f"/run/netns/{namespace}") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) == 0
        return socket.create_connection(("127.0.0.1", port), 10)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with contextlib.closing(client):
            try:
                server = connect()
            except OSError:
                return
            with contextlib.closing(server):
                server.settimeout(None)
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.close()
