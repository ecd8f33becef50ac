"""The sandbox in a process of its own, for rules of authors who are not trusted.

What such a process may do is little: no environment, no files, no new processes, limited memory. It is asked over
pipes (MessagePack, length first) and has a deadline by the wall clock. One that dies or misses it is killed, a new one
is asked about each program alone, and the program that ends it again is marked as having hit a limit. So a program that
breaks out of the Lua sandbox, or ends its process, takes neither the worker with it nor other rules' results.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from transforms.adapters.lua.sandbox import Columns, CompileError, Program, Reads, Sandbox, SandboxError
from transforms.domain.base.errors import EventTriggerError

MEMORY_BYTES: Final = 512 * 1024 * 1024
START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 2.0
# A program's own CPU limit is 50 ms; the wall clock may be slower.
ANSWER_SECONDS_PER_PROGRAM: Final = 0.25

_MAX_FRAME: Final = 64 * 1024 * 1024
_MAX_ANSWER: Final = 4 * 1024 * 1024
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode
_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from transforms.adapters.lua.sandbox_process import serve; serve()"
)

_Inputs = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


class _EndedError(EventTriggerError):
    """The process died, did not answer in time, or answered nonsense."""


class SandboxProcess:
    """An ``Engine`` whose programs run in a process of its own. Not thread-safe.

    Raises:
        CompileError: the first program that does not compile.
    """

    def __init__(self, programs: Sequence[Program], answer_seconds: float | None = None) -> None:
        self._programs = tuple(programs)
        self._answer_seconds = answer_seconds or ANSWER_SECONDS + ANSWER_SECONDS_PER_PROGRAM * len(programs)
        self._inputs: _Inputs | None = None
        self.reads: Reads = {}
        self._child = self._start()
        self._given = False

    @property
    def pid(self) -> int:
        """The process that runs the programs now."""
        return self._child.pid

    def _start(self) -> _Child:
        child = _Child()
        try:
            answer = child.ask(self._programs, START_SECONDS)
        except _EndedError as error:
            child.kill()
            raise SandboxError(f"the sandbox's process did not start: {error}") from None
        if "reads" not in answer:
            child.kill()
            raise CompileError(answer["number"], answer["message"])
        self.reads = answer["reads"]
        return child

    def give(self, event: dict[str, Any], user: dict[str, Any], visit: dict[str, Any]) -> None:
        """See ``Engine``."""
        reads = self.reads
        self._inputs = _picked(event, reads["event"]), _picked(user, reads["user"]), _picked(visit, reads["visit"])
        self._given = False

    def run(self, mask: str | None, history: Columns | None) -> tuple[str, str]:
        """See ``Engine``."""
        try:
            return self._ask(mask, history, self._answer_seconds)
        except _EndedError:
            self._restart()
        return self._one_by_one(mask or "1" * len(self._programs), history)

    def _one_by_one(self, mask: str, history: Columns | None) -> tuple[str, str]:
        marks, texts = [], []
        for number, wanted in enumerate(mask):
            mark, text = "-", ""
            if wanted == "1":
                alone = "0" * number + "1" + "0" * (len(mask) - number - 1)
                try:
                    answered, text = self._ask(alone, history, ANSWER_SECONDS)
                    mark = answered[number]
                except _EndedError as error:
                    mark, text = "L", f"over budget: its process was ended: {error}"
                    self._restart()
            marks.append(mark)
            if mark in "ELV":
                texts.append(text)
        return "".join(marks), "\0".join(texts)

    def _ask(self, mask: str | None, history: Columns | None, seconds: float) -> tuple[str, str]:
        answer = self._child.ask((None if self._given else self._inputs, mask, history), seconds)
        self._given = True
        if isinstance(answer, str):
            raise SandboxError(answer)
        if not (
            isinstance(answer, list)
            and len(answer) == 2
            and all(isinstance(one, str) for one in answer)
            and len(answer[0]) == len(self._programs)
            and sum(mark in "ELV" for mark in answer[0]) in (0, answer[1].count("\0") + 1)
        ):
            raise _EndedError("an answer that is none")
        return answer[0], answer[1]

    def _restart(self) -> None:
        self._child.kill()
        self._child = self._start()
        self._given = False

    def close(self) -> None:
        """End the process."""
        self._child.kill()


def _picked(source: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """Only what is read: the rest need not go through the pipe."""
    if names is None:
        return source
    return {name: source[name] for name in names if name in source}


class _Child:
    """One process and its pipes."""

    def __init__(self) -> None:
        # Isolated from the environment, so that its path, this package's home, has to be told.
        home = str(Path(__file__).parents[3])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        # Where nobody calls close(): a process whose pipe ends, ends; this spares the wait.
        self._finalizer = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: Any, seconds: float) -> Any:
        """The answer.

        Raises:
            _EndedError: there is none.
        """
        if not self._finalizer.alive:
            raise _EndedError("it was ended")  # and its pipes' numbers may be somebody else's
        deadline = time.monotonic() + seconds
        packed = _encode(question)
        self._write(len(packed).to_bytes(4, "big") + packed, deadline)
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > _MAX_ANSWER:
            raise _EndedError(f"an answer of {size} bytes")
        try:
            return _decode(self._read(size, deadline))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _EndedError("an answer that is none") from None

    def _write(self, packed: bytes, deadline: float) -> None:
        rest = memoryview(packed)
        while rest:
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)
            except OSError:
                raise _EndedError(self._how_it_ended()) from None

    def _read(self, size: int, deadline: float) -> bytes:
        found = bytearray()
        while len(found) < size:
            try:
                part = os.read(self._from, size - len(found))
            except BlockingIOError:
                self._wait(self._from, select.POLLIN, deadline)
                continue
            if not part:
                raise _EndedError(self._how_it_ended())
            found += part
        return bytes(found)

    def _wait(self, descriptor: int, wanted: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, wanted)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _EndedError("no answer in time")

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"exit code {self._process.wait(1)}"
        return "it closed its pipe"

    def kill(self) -> None:
        self._finalizer()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def serve() -> None:
    """The process's side: programs first, then question for question, until the pipe ends."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    try:
        sandbox = Sandbox(_decode(_frame(source), type=list[Program]))
    except CompileError as error:
        _reply(sink, {"number": error.number, "message": str(error)})
        return
    _confine()
    _reply(sink, {"reads": sandbox.reads})
    while packed := _frame(source):
        inputs, mask, history = _decode(packed)
        if inputs is not None:
            sandbox.give(*inputs)
        try:
            answer: Any = sandbox.run(mask, history)
        except SandboxError as error:
            answer = str(error)
        _reply(sink, answer)


def _confine() -> None:
    """Give up what is not needed once everything is loaded."""
    for name, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),  # standard input, output and error: nothing more can be opened
    ):
        resource.setrlimit(name, (limit, limit))


def _frame(source: BinaryIO) -> bytes:
    size = int.from_bytes(source.read(4), "big")
    return source.read(size) if size <= _MAX_FRAME else b""


def _reply(sink: BinaryIO, answer: Any) -> None:
    packed = _encode(answer)
    sink.write(len(packed).to_bytes(4, "big") + packed)
    sink.flush()
