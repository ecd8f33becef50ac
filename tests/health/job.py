"""A job whose health is asked for as people do, with the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer

from runners.flink.local.cluster import LocalFlink
from tests.builders import event
from tests.integration.jobs import ROOT, Topics

RULE = "name: every\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\non_missing_profile: run\n"


class Asked:
    """What ``status --json`` says of a job: its document, and its exit code."""

    def __init__(self, flink: LocalFlink, topics: Topics, *more: str) -> None:
        where = [f"--flink_master={flink.flink_master}", f"--job_name=test-{topics.tag}"]
        self.options = [*where, *topics.options(), *more]
        self.exit_code = -1
        self.document: dict[str, Any] = {}

    def status(self) -> Asked:
        done = run("status", "--json", *self.options)
        assert done.stderr == ""
        self.exit_code, self.document = done.returncode, json.loads(done.stdout)
        return self

    @property
    def verdict(self) -> tuple[str, str | None, int]:
        """State and section of the runbook, and the exit code."""
        found = self.document["verdict"]
        return found["state"], found["section"], self.exit_code

    @property
    def cause(self) -> str:
        found = self.document["verdict"]
        return f"{found['cause']}: {found['detail']}"

    def until(self, *wanted: tuple[str, str | None, int], deadline_s: float) -> float:
        """Ask until the verdict is one of these; how long the first right answer took from now on."""
        started_s = time.monotonic()
        while True:
            asked_s = time.monotonic() - started_s
            if self.status().verdict in wanted:
                return time.monotonic() - started_s
            assert asked_s < deadline_s, f"not {wanted} after {deadline_s} s, but {self.document['verdict']}"


def run(*arguments: str, deadline_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=deadline_s, check=False
    )


def a_rule(folder: Path, text: str = RULE) -> Path:
    path = folder / "rule.yaml"
    path.write_text(text)
    return path


@contextmanager
def steady(topics: Topics, per_second: float) -> Iterator[None]:
    """Produce events evenly while the context is open, also while brokers are away."""
    producer = Producer({"bootstrap.servers": topics.kafka.bootstrap_servers, "linger.ms": 5})
    ended = threading.Event()

    def produce() -> None:
        started_s, count = time.monotonic(), 0
        while not ended.is_set():
            while count < per_second * (time.monotonic() - started_s):
                body = event(f"u{count % 40}", event_id=f"e{count}", timestamp=time.time_ns() // 1_000_000)
                producer.produce(topics.events, orjson.dumps(body), body["user_id"].encode())
                count += 1
            producer.poll(0.02)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        producer.flush(10)
