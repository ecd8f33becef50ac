"""What a rule set's Lua costs, µs of CPU an event, everything included: ``python -m tests.benchmarks.rules``.

Ratios within one run say more than the numbers: every case is measured in turn, several times, and the best counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import orjson

from tests.builders import NOW_MS, event, filter_set, record, rule
from transforms.adapters.lua.engines import Isolation
from transforms.domain.events.event import Event, EventLimits, parse_event
from transforms.domain.users.history import History, Row
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

_ROUNDS = 7
_SECONDS_A_ROUND = 0.15

_FIELD = 'event.event_name == "checkout"'
_PROFILE = {f"field_{number}": f"value {number} of a profile of some two kilobytes" for number in range(40)}
_COUNT = """
local views = 0
for _, past in ipairs(history) do
  if past.event_name == "page_view" then views = views + 1 end
end
return views >= {least}"""


def cases() -> dict[str, tuple[list[str], Isolation]]:
    """Filters and isolation, by what they measure."""
    usual = [f'event.triggerable and event.event_name == "name {number}"' for number in range(10)]
    scans = [_COUNT.format(least=1000 + number) for number in range(10)]
    return {
        "no rule": ([], "none"),
        "one field test": ([_FIELD], "none"),
        "ten rules": (usual, "none"),
        "a field of the profile": (['user.country == "US"'], "none"),
        "a field of the parameters": (['event.parameters.utm_source == "news"'], "none"),
        "a history not reached": (['event.event_name == "checkout" and #history > 5'], "none"),
        "scan of 100 events": (scans[:1], "none"),
        "ten scans of 100 events": (scans, "none"),
        "scan that assigns a field": (["local own = {} own.x = 1" + scans[0]], "none"),
        "one field test, process": ([_FIELD], "process"),
        "ten rules, process": (usual, "process"),
        "scan of 100 events, process": (scans[:1], "process"),
    }


def event_and_user() -> tuple[Event, UserState, Visit]:
    """The spec's event, a profile of 2 KB, a history of 100."""
    fields = event(
        event_id="e", parameters={"utm_source": "google", "custom_params": {"page_title": "Home", "n": 1}}, duration=5
    )
    history = History(100)
    for number in range(100):
        history.add(Row(NOW_MS - 1000 + number, f"evt_{number:08d}", "page_view" if number % 3 else "click"))
    profile = orjson.dumps({"country": "DE"} | _PROFILE)
    user = UserState(NOW_MS, "fetched", profile, history)
    return parse_event(record(fields), NOW_MS, EventLimits(max_event_bytes=100_000)), user, Visit("v", NOW_MS, 3, False)


def best(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds a call in the best of some rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        calls, started = 0, clock()
        while (elapsed := clock() - started) < _SECONDS_A_ROUND:
            for _ in range(50):
                call()
            calls += 50
        rounds.append(elapsed / calls)
    return min(rounds)


def main() -> None:
    """Print a line a case."""
    parsed, user, visit = event_and_user()
    seconds_of: dict[str, float] = {}
    for name, (sources, isolation) in cases().items():
        rules = tuple(rule(f"r{number}", source) for number, source in enumerate(sources))
        with closing(filter_set(rules, isolation=isolation)) as filters:
            result = filters.evaluate(parsed, visit, user)
            if result.errors or result.allowed:
                raise AssertionError(f"{name}: {result}")
            # The CPU time of another process does not count here: the wall clock does.
            clock = time.perf_counter if isolation == "process" else time.thread_time
            seconds_of[name] = best(partial(filters.evaluate, parsed, visit, user), clock)
    for name, seconds in seconds_of.items():
        ratio = seconds / seconds_of["one field test"]
        sys.stdout.write(f"{name:<30} {seconds * 1e6:8.1f} µs  x{ratio:.1f}\n")
    rule_us = (seconds_of["ten rules"] - seconds_of["one field test"]) / 9 * 1e6
    scan_us = (seconds_of["ten scans of 100 events"] - seconds_of["scan of 100 events"]) / 9 * 1e6
    sys.stdout.write(f"{'each further rule':<30} {rule_us:8.1f} µs\n{'each further scan':<30} {scan_us:8.1f} µs\n")


if __name__ == "__main__":
    main()
