"""10,000 hostile calls on two threads, in a process of their own.

``python -m tests.transforms.adapters.lua.hostile_calls``

Prints JSON: calls, those that wrongly went through, and ms of CPU per call (p50, p99, max). A death of the process is
the exit code.
"""

from __future__ import annotations

import sys
import threading
import time

import orjson

from tests.builders import filter_set, rule
from tests.transforms.adapters.lua.hostile import HOSTILE
from tests.transforms.domain.rules.test_filters import ROWS, evaluate
from transforms.domain.rules.quarantine import Quarantine

CALLS = 10_000
THREADS = 2
# Scripts that use up their budget take 50 ms each time; of them this many rounds a thread, the rest is for the others.
SLOW_ROUNDS = 1
SLOW_S = 0.005


def hostile_calls(calls: int, milliseconds: list[float], wrong: list[str]) -> None:
    """Make ``calls`` calls in this thread; append the CPU time of each, and the scripts that did not fail."""
    never = Quarantine(trips=calls)
    sets = {name: filter_set((rule("good"), rule("bad", source)), never) for name, source in HOSTILE.items()}
    slow: dict[str, int] = {}
    while calls:
        for name, filters in sets.items():
            if slow.get(name, 0) >= SLOW_ROUNDS:
                continue
            started = time.thread_time()
            result = evaluate(filters, rows=ROWS)
            took = time.thread_time() - started
            if took > SLOW_S:
                slow[name] = slow.get(name, 0) + 1
            milliseconds.append(took * 1000)
            if result.allowed != filters.rules[:1] or [failed for failed, _ in result.errors] != [filters.rules[1]]:
                wrong.append(name)
            calls -= 1
            if not calls:
                return


def main() -> None:
    """Make the calls and print what came of them."""
    milliseconds: list[float] = []
    wrong: list[str] = []
    threads = [
        threading.Thread(target=hostile_calls, args=(CALLS // THREADS, milliseconds, wrong)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    milliseconds.sort()
    made = len(milliseconds)
    sys.stdout.buffer.write(
        orjson.dumps(
            {
                "scripts": len(HOSTILE),
                "calls": made,
                "wrong": sorted(set(wrong)),
                "p50_ms": round(milliseconds[made // 2], 2),
                "p99_ms": round(milliseconds[made * 99 // 100], 2),
                "max_ms": round(milliseconds[-1], 2),
            }
        )
        + b"\n"
    )


if __name__ == "__main__":
    main()
