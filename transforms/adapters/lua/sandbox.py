"""LuaJIT through lupa with ``sandbox*.lua`` in it: programs in, marks out. Plain values only, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, Protocol

import lupa.luajit21

from transforms.domain.base.errors import EventTriggerError

_NO_LIMIT: Final = 2**40
_MEMORY_PER_CALL: Final = 16 * 1024 * 1024
_MEMORY_KEPT: Final = 64 * 1024 * 1024
# Fields that are handed over one by one; a call takes no more than some 8000 values.
_MOST_FIELDS: Final = 1000
_BYTES_PER_CHARACTER: Final = 4

# Name for messages, source, and whether it has a value rather than a yes or no.
Program = tuple[str, str, bool]
# Of the history, oldest first: timestamps (ms), event ids, event names, further fields (None: of no event).
Columns = tuple[list[int], list[str], list[str], list[dict[str, Any]] | None]


Reads = dict[str, list[str] | None]


class SandboxError(EventTriggerError):
    """The sandbox itself failed, which no program should be able to bring about."""


class CompileError(EventTriggerError, ValueError):
    """Program ``number`` does not compile; the message is Lua's."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Engine(Protocol):
    """What runs programs on an event: in this process, or in one of its own.

    ``reads`` has of ``event``, ``user`` and ``visit`` the fields that programs read, None for all of them.
    """

    reads: Reads

    def give(self, event: dict[str, Any], user: dict[str, Any], visit: dict[str, Any]) -> None:
        """Set what the next runs are about; of each, fields that programs read are enough."""

    def run(self, mask: str | None, history: Columns | None) -> tuple[str, str]:
        """Run the programs that ``mask`` has a ``1`` for (None: all).

        Returns a mark a program, as ``sandbox.lua`` describes them, and the texts that belong to some of them.

        Raises:
            SandboxError: nothing is known of any program.
        """


class Sandbox:
    """Programs, compiled once. Not thread-safe.

    Raises:
        CompileError: the first that does not compile.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = tuple(programs)
        self._values: list[Any] = []
        self._characters = 0
        self.reads: Reads = {"event": [], "user": [], "visit": []}
        self._start()

    def _start(self) -> None:
        self._lua, compile_program, expect, self._evaluate = _runtime()
        self._table = self._lua.table_from
        for number, (name, source, has_value) in enumerate(self._programs):
            problem, _, read = compile_program(source, name, has_value)
            if problem is not None:
                raise CompileError(number, problem)
            for part in filter(None, read.split("\0")):
                table, _, field = part.partition("\1")
                self._note_read(table, field or None)
        for table, fields in self.reads.items():
            if fields is not None and len(fields) > _MOST_FIELDS:
                self.reads[table] = None
        tables = list(enumerate(self.reads.values()))
        self._fields = [(number, name) for number, fields in tables for name in fields or ()]
        self._wholes = [number for number, fields in tables if fields is None]
        expect(
            self._table([number + 1 for number, _ in self._fields]),
            self._table([name for _, name in self._fields]),
            self._table([number + 1 for number in self._wholes]),
        )

    def _note_read(self, table: str, field: str | None) -> None:
        fields = self.reads[table]
        if field is None:
            self.reads[table] = None
        elif fields is not None and field not in fields:
            fields.append(field)

    def give(self, event: dict[str, Any], user: dict[str, Any], visit: dict[str, Any]) -> None:
        """See ``Engine``."""
        sources = (event, user, visit)
        characters = 0
        values: list[Any] = []
        for number, name in self._fields:
            value: Any = sources[number].get(name)
            kind = type(value)
            if kind is str:
                characters += len(value)
            elif kind is int:
                value = _rounded(value)
            elif kind is dict or kind is list:
                value = self._converted(value)
            values.append(value)
        values += [self._converted(sources[number]) for number in self._wholes]
        self._values, self._characters = values, characters

    def run(self, mask: str | None, history: Columns | None) -> tuple[str, str]:
        """See ``Engine``."""
        columns = None
        if history is not None:
            timestamps, ids, names, extras = history
            columns = self._table(
                {
                    "timestamps": self._table(timestamps),
                    "ids": self._table(ids),
                    "names": self._table(names),
                    "extras": None if extras is None else self._converted(extras),
                }
            )
        used = self._lua.get_memory_used()
        if used > _MEMORY_KEPT:
            self._lua.gccollect()
            used = self._lua.get_memory_used()
        # Only around the call: at the limit, lupa's own conversions abort the process (notes/lua.md). The text that it
        # converts for the call has room of its own.
        self._lua.set_max_memory(used + _MEMORY_PER_CALL + self._characters * _BYTES_PER_CHARACTER)
        try:
            marks, texts = self._evaluate(mask, columns, *self._values)
        except (lupa.luajit21.LuaError, UnicodeDecodeError) as error:
            self._start()
            raise SandboxError(f"{type(error).__name__}: {error}") from error
        finally:
            self._lua.set_max_memory(_NO_LIMIT)
        return marks, texts

    def _converted(self, value: Any) -> Any:
        try:
            return self._table(value, recursive=True)
        except OverflowError:
            return self._table(_rounded(value), recursive=True)


def _rounded(value: Any) -> Any:
    """A JSON value whose integers Lua can take: it has doubles only, and rounds beyond 2^53 anyway."""
    if type(value) is int:
        return value if -(2**53) <= value <= 2**53 else float(value)
    if type(value) is dict:
        return {name: _rounded(inner) for name, inner in value.items()}
    if type(value) is list:
        return [_rounded(inner) for inner in value]
    return value


def compile_alone(source: str, name: str) -> tuple[str | None, list[str]]:
    """Why a program does not compile, and the global names that it reads and that nobody defines."""
    _, compile_program, *_ = _runtime()
    problem, unknown, _ = compile_program(source, name, False)
    return problem, unknown.split()


def _runtime() -> tuple[Any, Any, Any, Any]:
    """A Lua runtime with its ``compile``, ``expect`` and ``evaluate``."""
    lua = lupa.luajit21.LuaRuntime(
        register_eval=False,
        register_builtins=False,
        unpack_returned_tuples=True,
        attribute_filter=_refuse,
        # A limit has to be named here for set_max_memory to work at all; the one in force is set around each call.
        max_memory=_NO_LIMIT,
    )

    def load(name: str, *given: Any) -> Any:
        # One name for all in messages, where it is taken off again.
        source = resources.files("transforms.adapters.lua").joinpath(name).read_text("utf-8")
        return lua.execute(source, *given, name="=sandbox")

    budget, study = load("sandbox_budget.lua"), load("sandbox_bytecode.lua")
    compile_program, expect, evaluate = load("sandbox.lua", budget, load("sandbox_library.lua", budget), study)
    return lua, compile_program, expect, evaluate


def _refuse(*_: object) -> None:
    raise AttributeError("rules have no access to Python objects")
