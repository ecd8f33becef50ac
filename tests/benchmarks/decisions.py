"""What the decision log costs, µs of CPU an event of a whole step: ``python -m tests.benchmarks.decisions``.

Ten rules and a user in the state; none fires, or one does. Every case is measured in turn, several times, on shards of
its own, and the best counts.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

from tests.builders import Shard, batch, event, fetched, rule
from transforms.domain.events.micro_batch import EVENTS, VERSION, MicroBatch
from transforms.domain.events.record import encode_produced
from transforms.domain.shard.step_input import Answer

_ROUNDS = 9
_BATCHES = 40
_EVENTS = 50

_SAMPLES = (None, 0.0, 0.01, 0.1, 1.0)
_CASES = {"none of ten fires": "click", "one of ten fires": "name 3"}


def shard_of(sample: float | None) -> Shard:
    """A shard with ten rules and a loaded user."""
    rules = [rule(f"r{number}", f'event.event_name == "name {number}"') for number in range(10)]
    shard = Shard(*rules, decision_sample=sample)
    shard.step(batch(event("u", event_name="hello")))
    shard.step(answers=[Answer("u", fetched({"profile": {"country": "US"}, "visit": None, "history": []}))])
    return shard


def batches(name: str, numbers: Any) -> list[MicroBatch]:
    """Events of the user, made before the clock runs."""
    made = [
        [event("u", event_id=f"evt_{next(numbers):08d}", event_name=name) for _ in range(_EVENTS)]
        for _ in range(_BATCHES)
    ]
    records = [batch(*events).records for events in made]
    return [MicroBatch(VERSION, EVENTS, "events", record) for record in records]


def us_per_event(shard: Shard, given: list[MicroBatch]) -> float:
    """CPU of the steps and of the decisions' records, as ``HandleEvents`` makes them."""
    started = time.thread_time()
    for record in given:
        for decision in shard.step(record).decisions:
            encode_produced("decisions", decision.user_id.encode(), decision.to_json(), [])
    return (time.thread_time() - started) * 1e6 / (_BATCHES * _EVENTS)


def main() -> None:
    """Print a line a case."""
    for title, name in _CASES.items():
        numbers = itertools.count()
        found: dict[float | None, list[float]] = {sample: [] for sample in _SAMPLES}
        for _ in range(_ROUNDS):
            for sample in _SAMPLES:
                found[sample].append(us_per_event(shard_of(sample), batches(name, numbers)))
        off = min(found[None])
        for sample, times in found.items():
            what = "off" if sample is None else f"sample {sample:g}"
            sys.stdout.write(f"{title:<20} {what:<12} {min(times):6.1f} µs  {min(times) - off:+6.1f} µs\n")


if __name__ == "__main__":
    main()
