from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.builders import NOW_MS, rule
from tests.transforms.adapters.lua.hostile import HOSTILE
from tests.transforms.domain.rules.test_filters import EVENT, PROFILE, ROWS, ask
from transforms.adapters.lua import sandbox_process
from transforms.adapters.lua.sandbox import CompileError, SandboxError
from transforms.adapters.lua.sandbox_process import SandboxProcess
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.quarantine import Quarantine

GOOD = (
    rule("a", "event.triggerable and user.country == 'US'"),
    rule("b", "#history == 2 and history[1].event_id == 'e1'"),
    rule("c", "visit.page_count > 99"),
)


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with closing(SandboxProcess([("p", "event.n > 1", False)])) as started:
        started.give({"n": 2}, {}, {})
        yield started


def test_the_verdict_is_the_one_of_the_sandbox_in_this_process() -> None:
    rules = (*GOOD, rule("d", "event.nothing.more"), rule("k", cooldown={"time": "1h", "key": "#history"}))
    known: dict[str, Any] = {"fields": EVENT | {"event_id": "e", "huge": 2**64 - 1}, "profile": PROFILE, "rows": ROWS}
    isolated = FilterSet(rules, isolation="process")
    with closing(isolated):
        for _ in range(3):
            verdict = ask(isolated, **known)
            assert verdict == ask(FilterSet(rules), **known)
    assert [one.name for one in verdict.allowed] == ["a", "b", "k"]


@pytest.mark.parametrize("name", ["endless loop", "growing table", "backtracking pattern", "os", "nil index"])
def test_a_hostile_filter_fails_as_it_does_in_this_process(name: str) -> None:
    isolated = FilterSet((rule("good"), rule("bad", HOSTILE[name])), isolation="process")
    with closing(isolated):
        verdict = ask(isolated, rows=ROWS)
    assert (verdict.allowed, [one for one, _ in verdict.errors]) == (isolated.rules[:1], [isolated.rules[1]])
    here = ask(FilterSet(isolated.rules), rows=ROWS)
    # Which of two limits is hit first depends on how busy the machine is.
    assert [_without_limit(text) for _, text in verdict.errors] == [_without_limit(text) for _, text in here.errors]


def _without_limit(text: str) -> str:
    return text.partition("over budget: ")[0]


def test_a_filter_that_does_not_compile_is_refused() -> None:
    with pytest.raises(RuleError, match="rule 'bad': filter does not compile: bad:1: "):
        FilterSet((rule("good"), rule("bad", "if")), isolation="process")
    with pytest.raises(CompileError):
        SandboxProcess([("x", "if", False)])


# A process with a hole: a program named so ends it, or never comes back. No such hole is known in the real one.
_WITH_A_HOLE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from transforms.adapters.lua import sandbox_process
from transforms.adapters.lua.sandbox import Sandbox

class WithAHole(Sandbox):
    def run(self, mask, history):
        for number, (name, _, _) in enumerate(self._programs):
            if mask is None or mask[number] == "1":
                if name == "dies":
                    os._exit(7)
                if name == "hangs":
                    time.sleep(600)
                if name == "babbles":
                    os.write(1, b"\\0\\0\\0\\2\\xc1\\xc1")
        return super().run(mask, history)

sandbox_process.Sandbox = WithAHole
sandbox_process.serve()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [("dies", "exit code 7"), ("hangs", "no answer in time"), ("babbles", "an answer that is none")],
)
def test_a_program_that_ends_its_process_is_found_and_the_others_answer(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(sandbox_process, "_BOOT", _WITH_A_HOLE)
    monkeypatch.setattr(sandbox_process, "ANSWER_SECONDS", 1.0)
    rules = (GOOD[0], rule(name), GOOD[1], GOOD[2])
    filters = FilterSet(rules, Quarantine(trips=2), isolation="process")
    with closing(filters):
        for _ in range(2):
            verdict = ask(filters, EVENT, PROFILE, rows=ROWS)
            assert verdict.allowed == (rules[0], rules[2])
            assert verdict.tripped == (rules[1],)
            ((failed, said),) = verdict.errors
            assert (failed, said) == (rules[1], f"over budget: its process was ended: {message}")
        verdict = ask(filters, EVENT, PROFILE, rows=ROWS)
        assert (verdict.allowed, verdict.quarantined, verdict.errors) == ((rules[0], rules[2]), (rules[1],), ())


def test_a_process_that_is_killed_is_replaced(sandbox: SandboxProcess) -> None:
    first = sandbox.pid
    assert sandbox.run(None, None) == ("1", "")
    os.kill(first, signal.SIGKILL)
    assert sandbox.run(None, None) == ("1", "")
    assert sandbox.pid != first


def test_a_process_that_cannot_be_replaced_at_once_is_replaced_later(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sandbox_process, "_BOOT", "raise SystemExit(3)")
        os.kill(sandbox.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(SandboxError, match="did not start: exit code 3"):
                sandbox.run(None, None)
    assert sandbox.run(None, None) == ("1", "")


def test_a_process_that_stops_midway_is_replaced() -> None:
    with closing(SandboxProcess([("p", "event.n > 1", False)], answer_seconds=0.5)) as sandbox:
        first = sandbox.pid
        os.kill(first, signal.SIGSTOP)
        sandbox.give({"n": 2, "much": "x" * 1_000_000}, {}, {})  # more than a pipe takes
        assert sandbox.run(None, None) == ("1", "")
        assert sandbox.pid != first


def test_the_process_has_little_to_break_out_to(sandbox: SandboxProcess) -> None:
    of = Path(f"/proc/{sandbox.pid}")
    assert of.joinpath("environ").read_bytes() == b""
    limits = {line[:25].strip(): line[25:].split()[:2] for line in of.joinpath("limits").read_text().splitlines()}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max processes"] == limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
    assert limits["Max address space"] == [str(sandbox_process.MEMORY_BYTES)] * 2
    assert len(list(of.joinpath("fd").iterdir())) == 3
    assert of.joinpath("cwd").readlink() == Path("/")


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


def test_the_process_ends_with_its_owner() -> None:
    closed = SandboxProcess([("p", "true", False)])
    closed.close()
    assert ended(closed.pid)
    dropped = SandboxProcess([("p", "true", False)])
    pid = dropped.pid
    del dropped
    assert ended(pid)


def test_filter_sets_of_several_threads_have_a_process_each() -> None:
    wrong = []

    def use() -> None:
        filters = FilterSet((rule("a", f"event.timestamp == {NOW_MS}"),), isolation="process")
        with closing(filters):
            for _ in range(50):
                if ask(filters).allowed != filters.rules:
                    wrong.append(1)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
