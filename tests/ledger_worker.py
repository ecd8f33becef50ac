"""A worker with one shard and a ledger of deliveries, as a process that can be killed.

It decides webhooks at a steady rate, sends them, and writes a checkpoint now and then. Another process goes on from it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import time
from pathlib import Path
from typing import Any

from tests.builders import batch, event, rule
from tests.transforms.harness import Harness
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks import ledger_session
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.handle_events import HandleSettings, WebhookSettings

SHARD = 3
USERS = 500  # of whom none gets more webhooks than fit into a queue
PER_S = 200
CHECKPOINT_S = 1.0
LEASE_S = 1.5
WEBHOOK = rule("r", "true", actions=[{"type": "webhook", "destination": "crm"}], on_missing_profile="run")


def settings(url: str, brokers: str, secret: str) -> HandleSettings:
    crm = Destination(name="crm", url=f"{url}/crm", secrets=(f"file:{secret}",), max_in_flight=8)
    return HandleSettings(
        (WEBHOOK,),
        ShardSettings(destinations={"crm": crm.retry}),
        webhooks=WebhookSettings((crm,), EgressPolicy(allow_private=True)),
        user_shards=4,
        kafka_config={"bootstrap.servers": brokers},
        deliveries_topic="deliveries",
    )


def run(handle_settings: HandleSettings, checkpoint: Path, last: int) -> None:
    """Decide webhooks up to ``last`` in all, and send for as long as the process lives."""
    ledger_session.LEASE_S = LEASE_S  # type: ignore[misc]
    harness = Harness(handle_settings)
    harness.key = struct.pack(">II", SHARD, 0)
    harness.now_ms = time.time_ns() // 1_000_000
    decided = 0
    if checkpoint.exists():
        decided, harness.stored.cells, harness.due = pickle.loads(checkpoint.read_bytes())  # noqa: S301 - its own
    fn = harness.instance()
    began_s, first, written_s = time.monotonic(), decided, time.monotonic()
    while True:
        harness.now_ms = time.time_ns() // 1_000_000
        due = min(last, first + int((time.monotonic() - began_s) * PER_S))
        events: list[Any] = [event(f"u{number % USERS}", event_id=str(number)) for number in range(decided, due)]
        decided = due
        timer = harness.due["pending"]
        harness.bundle(
            fn, *([batch(*events)] if events else []), timer="pending" if timer and timer <= harness.now_ms else None
        )
        harness.outputs.clear()
        if time.monotonic() >= written_s + CHECKPOINT_S:
            written_s = time.monotonic()
            new = checkpoint.with_suffix(f".{os.getpid()}")
            new.write_bytes(pickle.dumps((decided, harness.stored.cells, harness.due)))
            # One that is no longer the shard's worker completes no checkpoint: its job has gone on without it.
            if checkpoint.with_suffix(".owner").read_text() == str(os.getpid()):
                new.replace(checkpoint)
        time.sleep(0.01)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    run(settings(given["url"], given["brokers"], given["secret"]), Path(given["checkpoint"]), given["last"])
