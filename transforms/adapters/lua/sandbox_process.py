"""The sandbox in a process of its own, for rules of authors who are not trusted.

The process may do little (``confinement.py``): it has an empty environment and limited memory, and where the kernel has
Landlock or seccomp no files, network and further processes. Requests and answers
go through pipes (MessagePack after its length) and have a deadline by the wall clock. A process that dies or misses the
deadline is killed; a new one then runs each program alone, and a program that ends it again has hit a limit. So a
program that breaks out of the Lua sandbox, or ends its process, harms neither the worker nor other rules' results.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from transforms.adapters.lua.confinement import confine
from transforms.adapters.lua.sandbox import Sandbox, rounded
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.rules import engine

START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 2.0
# A program's own CPU limit is 50 ms; the wall clock may be slower.
ANSWER_SECONDS_PER_PROGRAM: Final = 0.25

_MAX_FRAME: Final = 64 * 1024 * 1024
_MAX_ANSWER: Final = 4 * 1024 * 1024
_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from transforms.adapters.lua.sandbox_process import serve; serve()"
)

_Inputs = tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, Sequence[int], dict[str, Any] | None]
_T = TypeVar("_T")


class _StartAnswer(msgspec.Struct):
    """What the programs read; None if program ``number`` does not compile."""

    reads: engine.Reads | None = None
    number: int = 0
    message: str = ""
    holds: list[str] = []


# The first request is the programs. Each further one is a run: the inputs (None: those of the run before), the selected
# programs and the history. Its answer is the outcomes, or the message of an ``EngineError``.
_Run = tuple[_Inputs | None, list[int] | None, engine.Columns | None]
_RunAnswer = dict[int, engine.Outcome] | str
# Rules see the longest integers as the nearest double.
_encoder: Final = msgspec.msgpack.Encoder(enc_hook=float)
_PROGRAMS: Final = msgspec.msgpack.Decoder(list[engine.Program])
_RUN: Final[msgspec.msgpack.Decoder[_Run]] = msgspec.msgpack.Decoder(_Run)
_START_ANSWER: Final = msgspec.msgpack.Decoder(_StartAnswer)
_RUN_ANSWER: Final[msgspec.msgpack.Decoder[_RunAnswer]] = msgspec.msgpack.Decoder(_RunAnswer)
_NO_ANSWER: Final = "an answer that is none"


class _EndedError(EventTriggerError):
    """The process died, did not answer in time, or answered nonsense."""


class SandboxProcess:
    """An ``Engine`` whose programs run in a process of its own.

    Args:
        programs: the programs.
        answer_seconds: how long a run may take by the wall clock; the default depends on the number of programs.

    Raises:
        CompileError: the first program that does not compile.
        EngineError: the process does not start.

    Attributes:
        confinement: what the process gave up before it ran anything, measures of ``confinement.MEASURES``.
    """

    def __init__(self, programs: Sequence[engine.Program], answer_seconds: float | None = None) -> None:
        self._programs = tuple(programs)
        self._answer_seconds = answer_seconds or ANSWER_SECONDS + ANSWER_SECONDS_PER_PROGRAM * len(programs)
        self._inputs: _Inputs | None = None
        self.reads: engine.Reads = {}
        self.confinement: tuple[str, ...] = ()
        self._start()

    @property
    def pid(self) -> int:
        """The process that runs the programs now."""
        return self._child.process.pid

    def _start(self) -> None:
        child = self._child = _Child()
        self._has_inputs = False
        try:
            answer = child.ask(self._programs, _START_ANSWER, START_SECONDS)
        except _EndedError as error:
            child.kill()
            raise engine.EngineError(f"the sandbox's process did not start: {error}") from None
        if answer.reads is None:
            child.kill()
            raise engine.CompileError(answer.number, answer.message)
        self.reads = answer.reads
        self.confinement = tuple(answer.holds)

    def set_inputs(
        self,
        event: dict[str, Any],
        user: dict[str, Any],
        visit: dict[str, Any],
        enrichment: str = "",
        clocks: Sequence[int] = (),
        begun: dict[str, Any] | None = None,
    ) -> None:
        """See ``Engine``."""
        reads = self.reads
        picked = _picked(event, reads["event"]), _picked(user, reads["user"]), _picked(visit, reads["visit"])
        self._inputs = (*picked, enrichment, clocks, begun)
        self._has_inputs = False

    def run(self, selected: Collection[int] | None, history: engine.Columns | None) -> engine.Outcomes:
        """See ``Engine``."""
        try:
            return self._ask(selected, history, self._answer_seconds)
        except _EndedError:
            self._restart()
        if selected is None:
            selected = [number for number, program in enumerate(self._programs) if not program.wants_value]
        return self._run_one_by_one(selected, history)

    def _run_one_by_one(self, selected: Collection[int], history: engine.Columns | None) -> engine.Outcomes:
        outcomes: dict[int, engine.Outcome] = {}
        for number in sorted(selected):
            started = time.monotonic()
            try:
                outcomes |= self._ask([number], history, ANSWER_SECONDS)
            except _EndedError as error:
                ms = (time.monotonic() - started) * 1000
                message = f"over budget: its process was ended: {error}"
                outcomes[number] = engine.Outcome(engine.OutcomeKind.LIMIT, message, ms)
                self._restart()
        return outcomes

    def _ask(
        self, selected: Collection[int] | None, history: engine.Columns | None, seconds: float
    ) -> dict[int, engine.Outcome]:
        inputs = None if self._has_inputs else self._inputs
        numbers = None if selected is None else list(selected)
        try:
            answer = self._child.ask((inputs, numbers, history), _RUN_ANSWER, seconds)
        except OverflowError:  # an integer of a profile that has more than 64 bits
            answer = self._child.ask((tuple(map(rounded, inputs or ())), numbers, history), _RUN_ANSWER, seconds)
        self._has_inputs = True
        if isinstance(answer, str):
            raise engine.EngineError(answer)
        if not all(0 <= number < len(self._programs) for number in answer):
            raise _EndedError(_NO_ANSWER)
        return answer

    def _restart(self) -> None:
        self._child.kill()
        self._start()

    def close(self) -> None:
        """End the process."""
        self._child.kill()


def _picked(source: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """Only the fields that programs read: the others need not go through the pipe."""
    if names is None:
        return source
    return {name: source[name] for name in names if name in source}


class _Child:
    """One process and its pipes."""

    def __init__(self) -> None:
        # Python runs isolated from the environment (-I), so it gets the path of this package as an argument.
        home = str(Path(__file__).parents[3])
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert self.process.stdin is not None  # noqa: S101 - both are pipes
        assert self.process.stdout is not None  # noqa: S101
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        # For owners that never call close(). The process would end with its pipe; this does not wait for that.
        self.kill = weakref.finalize(self, _end, self.process)

    def ask(self, request: Any, decoder: msgspec.msgpack.Decoder[_T], seconds: float) -> _T:
        """Send a request and wait for its answer.

        Raises:
            _EndedError: there is no answer, or one that the decoder refuses.
        """
        if not self.kill.alive:
            raise _EndedError("it was ended")  # by now, the numbers of its pipes may belong to other files
        deadline = time.monotonic() + seconds
        packed = _encoder.encode(request)
        self._write(len(packed).to_bytes(4, "big") + packed, deadline)
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > _MAX_ANSWER:
            raise _EndedError(f"an answer of {size} bytes")
        try:
            return decoder.decode(self._read(size, deadline))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _EndedError(_NO_ANSWER) from None

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
        received = bytearray()
        while len(received) < size:
            try:
                part = os.read(self._from, size - len(received))
            except BlockingIOError:
                self._wait(self._from, select.POLLIN, deadline)
                continue
            if not part:
                raise _EndedError(self._how_it_ended())
            received += part
        return bytes(received)

    def _wait(self, descriptor: int, wanted: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, wanted)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _EndedError("no answer in time")

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"exit code {self.process.wait(1)}"
        return "it closed its pipe"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def serve() -> None:
    """The process's side: compile the programs, then answer runs until the pipe ends."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    try:
        sandbox = Sandbox(_PROGRAMS.decode(_read_frame(source)))
    except engine.CompileError as error:
        _reply(sink, _StartAnswer(None, error.number, str(error)))
        return
    _reply(sink, _StartAnswer(sandbox.reads, holds=confine()))
    while packed := _read_frame(source):
        inputs, selected, history = _RUN.decode(packed)
        if inputs is not None:
            sandbox.set_inputs(*inputs)
        try:
            _reply(sink, sandbox.run(selected, history))
        except engine.EngineError as error:
            _reply(sink, str(error))


def _read_frame(source: BinaryIO) -> bytes:
    size = int.from_bytes(source.read(4), "big")
    return source.read(size) if size <= _MAX_FRAME else b""


def _reply(sink: BinaryIO, answer: Any) -> None:
    packed = _encoder.encode(answer)
    sink.write(len(packed).to_bytes(4, "big") + packed)
    sink.flush()
