"""What metrics cost on the real Kafka and Flink: ``python -m tests.benchmarks.metrics_on_flink``, five minutes a rate.

One job under a steady load, whose worker has its metrics on for ten seconds and off for ten, in turns: same process,
same state, same minute. CPU time of the worker and of the TaskManager comes from ``/proc``; each pair of turns gives a
ratio, and what is printed is their mean with its standard error. What Beam and Flink measure of themselves stays on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Final

from pipeline.embedded.load import LoadGenerator
from runners.flink import worker as worker_boot
from tests.benchmarks.main_job import Bench, reader, running_bench, wait_for_actions
from tests.benchmarks.peers.sampling import cpu_seconds, process_tree

_TURN_S: Final = 10
_SETTLED_S: Final = 1.0
_WARM_S: Final = 20
_ROOT: Final = Path(__file__).parents[2]
_RUN: Final = """\
#!/bin/sh
cd {root} && exec {python} -W ignore -m tests.benchmarks.metrics_on_flink --worker "$@"
"""


def is_off(now_s: float) -> bool:
    """Whether this is a turn without metrics, by seconds since the epoch; all processes agree on it."""
    return int(now_s // _TURN_S) % 2 == 1


def _take_turns() -> None:
    while "apache_beam.runners.worker.sdk_worker_main" not in sys.modules:
        time.sleep(0.1)
    time.sleep(5)  # whoever imports it first is not to be us
    from tests.benchmarks.metrics import without_metrics

    while True:
        if is_off(time.time()):
            with without_metrics():
                while is_off(time.time()):
                    time.sleep(0.05)
        time.sleep(0.05)


def measured(bench: Bench, rate: float, turns: int) -> list[tuple[float, float]]:
    """CPU µs an event of a turn with metrics and of the next one without, worker and TaskManager together."""
    topics = bench.topics()
    with tempfile.TemporaryDirectory() as folder:
        command = Path(folder, "event-trigger-worker")
        command.write_text(_RUN.format(root=_ROOT, python=sys.executable))
        command.chmod(0o755)
        with bench.job(topics, "--starting_offsets=earliest", f"--worker_command={command}"):
            consumer = reader(bench.kafka, topics.actions)
            with LoadGenerator(bench.kafka.bootstrap_servers, topics.events, rate, 2000) as load:
                wait_for_actions(consumer, 0, 1)
                consumer.close()
                time.sleep(_WARM_S)
                cost = [_turn(bench, load, is_wanted_off) for _ in range(turns) for is_wanted_off in (False, True)]
    return list(zip(cost[::2], cost[1::2], strict=True))


def _turn(bench: Bench, load: LoadGenerator, is_wanted_off: bool) -> float:
    while is_off(time.time()) != is_wanted_off:
        time.sleep(0.01)
    time.sleep(_SETTLED_S)
    roots = bench.flink.task_manager_pids
    pids = process_tree(roots).union(roots)
    cpu_s, events = cpu_seconds(pids), load.produced
    time.sleep(_TURN_S - time.time() % _TURN_S - 0.2)
    return (cpu_seconds(pids) - cpu_s) / (load.produced - events) * 1e6


def main() -> None:
    """Print a line a rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 2500, 5000], help="events/s")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of turns a rate")
    arguments = parser.parse_args()
    with running_bench() as bench:
        for rate in arguments.rates:
            pairs = measured(bench, rate, arguments.pairs)
            shares = [1 - off / on for on, off in pairs]
            on_us = mean(on for on, _ in pairs)
            error = stdev(shares) / len(shares) ** 0.5
            sys.stdout.write(
                f"{rate:>6,.0f} events/s: {on_us:6.1f} µs CPU an event, metrics are {mean(shares):.1%} ± {error:.1%}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        threading.Thread(target=_take_turns, daemon=True).start()
        worker_boot.main(sys.argv[2:])
    main()
