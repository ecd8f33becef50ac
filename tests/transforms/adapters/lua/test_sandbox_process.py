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

from tests.builders import NOW_MS, filter_set, rule
from tests.transforms.adapters.lua.hostile import HOSTILE
from tests.transforms.domain.rules.test_filters import EVENT, PROFILE, ROWS, evaluate
from transforms.adapters.lua import confinement, sandbox_process
from transforms.adapters.lua.sandbox_process import SandboxProcess
from transforms.domain.rules.engine import CompileError, EngineError, Outcome, OutcomeKind, Program
from transforms.domain.rules.filters import columns_of
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.quarantine import Quarantine

ALLOWED = {0: Outcome(OutcomeKind.ALLOWED)}
GOOD = (
    rule("a", "event.triggerable and user.country == 'US'"),
    rule("b", "#history == 2 and history[1].event_id == 'e1'"),
    rule("c", "visit.page_count > 99"),
)


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with closing(SandboxProcess([Program("p", "event.n > 1")])) as started:
        started.set_inputs({"n": 2}, {}, {})
        yield started


def test_the_result_is_that_of_the_sandbox_in_this_process() -> None:
    rules = (*GOOD, rule("d", "event.nothing.more"), rule("k", cooldown={"time": "1h", "key": "#history"}))
    inputs: dict[str, Any] = {"fields": EVENT | {"event_id": "e", "huge": 2**64 - 1}, "profile": PROFILE, "rows": ROWS}
    isolated = filter_set(rules, isolation="process")
    with closing(isolated):
        for _ in range(3):
            result = evaluate(isolated, **inputs)
            assert result == evaluate(filter_set(rules), **inputs)
    assert [allowed.name for allowed in result.allowed] == ["a", "b", "k"]


@pytest.mark.parametrize("name", ["endless loop", "growing table", "backtracking pattern", "os", "nil index"])
def test_a_hostile_filter_fails_as_it_does_in_this_process(name: str) -> None:
    isolated = filter_set((rule("good"), rule("bad", HOSTILE[name])), isolation="process")
    with closing(isolated):
        result = evaluate(isolated, rows=ROWS)
    assert (result.allowed, [failed for failed, _ in result.errors]) == (isolated.rules[:1], [isolated.rules[1]])
    here = evaluate(filter_set(isolated.rules), rows=ROWS)
    # Which of two limits is hit first depends on how busy the machine is.
    assert [_without_limit(text) for _, text in result.errors] == [_without_limit(text) for _, text in here.errors]


@pytest.mark.slow
def test_no_hostile_script_takes_more_than_twice_its_limit_or_ends_its_process() -> None:
    programs = [Program(name, source) for name, source in HOSTILE.items()]
    with closing(SandboxProcess(programs)) as sandbox:
        clock = ~sandbox.pid << 3 | 2  # Linux's number for the CPU time of a process
        sandbox.set_inputs(EVENT, PROFILE, {})
        first = sandbox.pid
        too_long = []
        for number, name in enumerate(HOSTILE):
            seconds = []
            while not seconds or (seconds[-1] > 0.1 and len(seconds) < 3):  # busy machines slow down single calls
                started = time.clock_gettime(clock)
                outcome = sandbox.run([number], columns_of(ROWS))[number]
                seconds.append(time.clock_gettime(clock) - started)
                assert outcome.kind is OutcomeKind.LIMIT or (
                    outcome.kind is OutcomeKind.ERROR and seconds[-1] < 0.06
                ), name
            if min(seconds) > 0.1:
                too_long.append((name, seconds))
        assert (too_long, sandbox.pid) == ([], first)


def _without_limit(text: str) -> str:
    return text.partition("over budget: ")[0]


def test_a_filter_that_does_not_compile_is_refused() -> None:
    with pytest.raises(RuleError, match="rule 'bad': filter does not compile: bad:1: "):
        filter_set((rule("good"), rule("bad", "if")), isolation="process")
    with pytest.raises(CompileError):
        SandboxProcess([Program("x", "if")])


# A process with a hole: a program of such a name ends it, or never returns. No such hole is known in the real one.
_WITH_A_HOLE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from transforms.adapters.lua import sandbox_process
from transforms.adapters.lua.sandbox import Sandbox

class WithAHole(Sandbox):
    def run(self, selected, history):
        for number, (name, *_) in enumerate(self._programs):
            if selected is None or number in selected:
                if name == "dies":
                    os._exit(7)
                if name == "hangs":
                    time.sleep(600)
                if name == "babbles":
                    os.write(1, b"\\0\\0\\0\\2\\xc1\\xc1")
                if name == "invents":  # an outcome of a program that does not exist
                    os.write(1, b"\\0\\0\\0\\x0b\\x81\\x63\\x91\\xa7allowed")
        return super().run(selected, history)

sandbox_process.Sandbox = WithAHole
sandbox_process.serve()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dies", "exit code 7"),
        ("hangs", "no answer in time"),
        ("babbles", "an answer that is none"),
        ("invents", "an answer that is none"),
    ],
)
def test_a_program_that_ends_its_process_is_found_and_the_others_answer(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(sandbox_process, "_BOOT", _WITH_A_HOLE)
    monkeypatch.setattr(sandbox_process, "ANSWER_SECONDS", 1.0)
    rules = (GOOD[0], rule(name), GOOD[1], GOOD[2])
    filters = filter_set(rules, Quarantine(trips=2), isolation="process")
    with closing(filters):
        for _ in range(2):
            result = evaluate(filters, EVENT, PROFILE, rows=ROWS)
            assert result.allowed == (rules[0], rules[2])
            assert result.tripped == (rules[1],)
            ((failed, error),) = result.errors
            assert (failed, error) == (rules[1], f"over budget: its process was ended: {message}")
        result = evaluate(filters, EVENT, PROFILE, rows=ROWS)
        assert (result.allowed, result.quarantined, result.errors) == ((rules[0], rules[2]), (rules[1],), ())


def test_a_process_that_is_killed_is_replaced(sandbox: SandboxProcess) -> None:
    first = sandbox.pid
    assert sandbox.run(None, None) == ALLOWED
    os.kill(first, signal.SIGKILL)
    assert sandbox.run(None, None) == ALLOWED
    assert sandbox.pid != first


def test_a_process_that_cannot_be_replaced_at_once_is_replaced_later(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sandbox_process, "_BOOT", "raise SystemExit(3)")
        os.kill(sandbox.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(EngineError, match="did not start: exit code 3"):
                sandbox.run(None, None)
    assert sandbox.run(None, None) == ALLOWED


def test_a_process_that_stops_midway_is_replaced() -> None:
    with closing(SandboxProcess([Program("p", "event.n > 1")], answer_seconds=0.5)) as sandbox:
        first = sandbox.pid
        os.kill(first, signal.SIGSTOP)
        sandbox.set_inputs({"n": 2, "much": "x" * 1_000_000}, {}, {})  # more than a pipe takes
        assert sandbox.run(None, None) == ALLOWED
        assert sandbox.pid != first


def test_the_process_has_little_to_break_out_to(sandbox: SandboxProcess) -> None:
    of = Path(f"/proc/{sandbox.pid}")
    assert of.joinpath("environ").read_bytes() == b""
    limits = {line[:25].strip(): line[25:].split()[:2] for line in of.joinpath("limits").read_text().splitlines()}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max processes"] == limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
    assert limits["Max address space"] == [str(confinement.MEMORY_BYTES)] * 2
    assert len(list(of.joinpath("fd").iterdir())) == 3
    assert of.joinpath("cwd").readlink() == Path("/")


# What a program that broke out might try, without a descriptor of its own where that matters.
_ATTEMPTS = {
    "open a file": "os.open('/etc/passwd', os.O_RDONLY)",
    "open a freed descriptor": "(os.close(2), os.open('/etc/passwd', os.O_RDONLY))",
    "list a folder": "os.listdir('/')",
    "look at a file": "os.stat('/etc/passwd')",
    "make a folder": "os.mkdir('/tmp/broken-out')",
    "rename": "os.rename('/tmp', '/tmp2')",
    "change rights": "os.chmod('/tmp', 0o777)",
    "change folder": "os.chdir('/tmp')",
    "fork": "os.fork()",
    "thread": "threading.Thread(target=print).start()",
    "execute": "os.execv('/bin/true', ['true'])",
    "socket": "socket.socket()",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "socket pair": "socket.socketpair()",
    "pipe": "os.pipe()",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "signal its group": "os.killpg(0, 0)",
    "trace its parent": "system(libc.ptrace(16, PARENT, 0, 0))",
    "read its parent": "system(libc.process_vm_readv(PARENT, None, 0, None, 0, 0))",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
    "its parent's limits": "resource.prlimit(PARENT, resource.RLIMIT_NOFILE, (1, 1))",
    "be another user": "os.setuid(12345)",
    "a namespace": "system(libc.unshare(0x10000000))",
    "mount": "system(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "io_uring": "system(libc.syscall(425, 1, None))",
    "memory as a file": "system(libc.memfd_create(b'x', 0))",
    "32-bit numbers": "system(libc.syscall(0x40000002, b'/etc/passwd', 0))",
}

_BREAKS_OUT = """
import ctypes, os, resource, socket, sys, threading
sys.path.insert(0, sys.argv[1])
from transforms.adapters.lua import sandbox_process
from transforms.adapters.lua.sandbox import Sandbox
from transforms.domain.rules.engine import Outcome, OutcomeKind

libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()

def system(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

class Broken(Sandbox):
    def run(self, selected, history):
        outcomes = {}
        for number, (_, source, *_) in enumerate(self._programs):
            try:
                eval(source[3:])
                told = "done"
            except BaseException as error:
                told = repr(error)
            outcomes[number] = Outcome(OutcomeKind.ERROR, told)
        return outcomes

sandbox_process.Sandbox = Broken
sandbox_process.serve()
"""


def test_a_program_that_breaks_out_finds_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_process, "_BOOT", _BREAKS_OUT)
    programs = [Program(name, f"-- {code}") for name, code in _ATTEMPTS.items()]
    programs += [Program("environment", "-- 1 / len(set(os.environ) - {'LC_CTYPE'})")]
    with closing(SandboxProcess(programs)) as broken:
        if confinement.SECCOMP not in broken.confinement:
            pytest.skip("this kernel has no seccomp")
        broken.set_inputs({}, {}, {})
        told = broken.run(None, None)
        refused = ("PermissionError", "Operation not permitted", "can't start new thread", "not allowed to raise")
        found = {program.name: told[number].text for number, program in enumerate(programs)}
    assert "ZeroDivisionError" in found.pop("environment")
    assert {name: message for name, message in found.items() if not any(text in message for text in refused)} == {}


def test_each_measure_holds_by_itself_without_those_that_a_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = sandbox_process._BOOT.replace(
        "import serve;",
        "import serve; from transforms.adapters.lua import confinement; confinement._SYSTEM_CALLS.clear(); "
        "confinement._landlock = lambda libc: False;",
    )
    monkeypatch.setattr(sandbox_process, "_BOOT", boot)
    with closing(SandboxProcess([Program("p", "true")])) as sandbox:
        assert sandbox.confinement == (confinement.LIMITS, confinement.UNDUMPABLE, confinement.NO_NEW_PRIVILEGES)
        sandbox.set_inputs({}, {}, {})
        assert sandbox.run(None, None) == ALLOWED


def test_landlock_alone_keeps_files_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sandbox_process,
        "_BOOT",
        _BREAKS_OUT.replace(
            "PARENT =", "from transforms.adapters.lua import confinement; confinement._SYSTEM_CALLS.clear(); PARENT ="
        ),
    )
    with closing(SandboxProcess([Program("p", f"-- {_ATTEMPTS['open a freed descriptor']}")])) as broken:
        if confinement.LANDLOCK not in broken.confinement:
            pytest.skip("this kernel has no Landlock")
        broken.set_inputs({}, {}, {})
        assert "PermissionError" in broken.run(None, None)[0].text


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


def test_the_process_ends_with_its_owner() -> None:
    closed = SandboxProcess([Program("p", "true")])
    closed.close()
    assert ended(closed.pid)
    dropped = SandboxProcess([Program("p", "true")])
    pid = dropped.pid
    del dropped
    assert ended(pid)


def test_filter_sets_of_several_threads_have_a_process_each() -> None:
    wrong = []

    def use() -> None:
        filters = filter_set((rule("a", f"event.timestamp == {NOW_MS}"),), isolation="process")
        with closing(filters):
            for _ in range(50):
                if evaluate(filters).allowed != filters.rules:
                    wrong.append(1)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
