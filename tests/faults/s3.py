"""An S3 endpoint on 127.0.0.1 that can be taken down, or answer 503, and comes back with what it held."""

from __future__ import annotations

import os
import re
import signal
import sys

import requests

from runners.flink.local.processes import LOCALHOST, Process, accepts_connections, free_ports
from runners.flink.local.service import Service
from tests import moto
from tests.integration.jobs import ROOT

# What moto takes; they are given to child processes only.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


class LocalS3(Service):
    """moto's S3 server with one bucket, ``flink``."""

    name = "S3"
    grace_s = 0
    bucket = "flink"

    def __init__(self) -> None:
        super().__init__()
        (self._port,) = free_ports(1)
        self.endpoint = f"http://{LOCALHOST}:{self._port}"

    def start(self) -> None:
        """Start the server and make the bucket."""
        self._process = Process.start(
            self.name,
            [sys.executable, "-m", "tests.faults.s3_server", str(self._port)],
            log_file=self._open_work_dir() / "log",
            env={**CREDENTIALS, "PYTHONPATH": f"{ROOT}:{moto.packages()}"},
            cwd=ROOT,
        )
        self._wait(up=True)
        self.make_bucket(self.bucket)

    def make_bucket(self, name: str, versioned: bool = False) -> None:
        """Make another bucket."""
        requests.put(f"{self.endpoint}/{name}", timeout=10).raise_for_status()
        if versioned:
            status = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
            requests.put(f"{self.endpoint}/{name}?versioning", data=status, timeout=10).raise_for_status()

    @property
    def settings(self) -> dict[str, str]:
        """Flink settings that put checkpoints, savepoints and recovery data into the bucket.

        The cluster needs the plugin (``artifacts.s3_plugin``) and the credentials in its environment.
        """
        return {
            "s3.endpoint": self.endpoint,
            "s3.path.style.access": "true",
            "state.checkpoints.dir": f"s3://{self.bucket}/checkpoints",
            "state.savepoints.dir": f"s3://{self.bucket}/savepoints",
            "high-availability.storageDir": f"s3://{self.bucket}/ha",
        }

    def keys(self, prefix: str) -> list[str]:
        """The first thousand keys that begin so."""
        answer = requests.get(f"{self.endpoint}/{self.bucket}", params={"list-type": "2", "prefix": prefix}, timeout=10)
        answer.raise_for_status()
        return re.findall("<Key>(.*?)</Key>", answer.text)

    def down(self) -> None:
        """From now on connections are refused."""
        self._switch(signal.SIGUSR1, up=False)

    def slow_down(self) -> None:
        """From now on everything is answered with 503 SlowDown."""
        self._switch(signal.SIGHUP, up=True)
        self._wait_for_answers(slow=True)

    def up(self) -> None:
        """It answers again."""
        self._switch(signal.SIGUSR2, up=True)
        self._wait_for_answers(slow=False)

    def _wait_for_answers(self, slow: bool) -> None:
        assert self._process is not None
        self._process.wait_for(
            lambda: (requests.get(f"{self.endpoint}/{self.bucket}", timeout=10).status_code == 503) == slow,
            what="slowed down" if slow else "answering",
            deadline_s=60,
        )

    def _switch(self, number: signal.Signals, up: bool) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._wait(up)

    def _wait(self, up: bool) -> None:
        assert self._process is not None
        self._process.wait_for(
            lambda: accepts_connections(self._port) == up, what="up" if up else "down", deadline_s=60
        )
