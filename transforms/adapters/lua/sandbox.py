"""LuaJIT through lupa, with the sandbox of ``sandbox*.lua`` in it. Only plain values cross the border, both ways."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from importlib import resources
from typing import Any, Final

import lupa.luajit21

from transforms.domain.rules import engine

_NO_LIMIT: Final = 2**40
_MEMORY_PER_CALL: Final = 16 * 1024 * 1024
_MEMORY_KEPT: Final = 64 * 1024 * 1024
# More fields than this are handed over as a whole table: a Lua call takes no more than some 8000 arguments.
_MOST_FIELDS: Final = 1000
_BYTES_PER_CHARACTER: Final = 4


class Sandbox:
    """An ``Engine`` in this process.

    Raises:
        CompileError: the first program that does not compile.
    """

    def __init__(self, programs: Sequence[engine.Program]) -> None:
        self._programs = tuple(programs)
        self._values: list[Any] = []
        self._clocks: Any = None
        self._begun: Any = None
        self._characters = 0
        self.reads: engine.Reads = {"event": [], "user": [], "visit": []}
        self._start()

    def _start(self) -> None:
        self._lua, compile_program, expect_values, self._evaluate = _load_sandbox()
        self._table = self._lua.table_from
        for number, program in enumerate(self._programs):
            problem, _, _, reads = _compiled(compile_program, program)
            if problem is not None:
                raise engine.CompileError(number, problem)
            for read in filter(None, reads.split("\0")):
                table, _, field = read.partition("\1")
                self._note_read(table, None if table == engine.ENRICHMENT else field or None)
        for table, fields in self.reads.items():
            if fields is not None and len(fields) > _MOST_FIELDS:
                self.reads[table] = None
        tables = list(enumerate(self.reads.values()))
        self._fields = [(number, name) for number, fields in tables for name in fields or ()]
        self._wholes = [number for number, fields in tables if fields is None]
        expect_values(
            self._table([number + 1 for number, _ in self._fields]),
            self._table([name for _, name in self._fields]),
            self._table([number + 1 for number in self._wholes]),
        )

    def _note_read(self, table: str, field: str | None) -> None:
        fields = self.reads.get(table)
        if field is None:
            self.reads[table] = None
        elif fields is not None and field not in fields:
            fields.append(field)

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
        inputs: tuple[Any, ...] = (event, user, visit, enrichment)
        characters = 0
        values: list[Any] = []
        for number, name in self._fields:
            value: Any = inputs[number].get(name)
            kind = type(value)
            if kind is str:
                characters += len(value)
            elif kind is int:
                value = rounded(value)
            elif kind is dict or kind is list:
                value = self._converted(value)
            values.append(value)
        for number in self._wholes:
            value = inputs[number]
            values.append(value if type(value) is str else self._converted(value))
        self._values, self._characters = values, characters
        self._clocks = self._table(clocks) if clocks else None
        self._begun = None if begun is None else self._converted(begun)

    def run(self, selected: Collection[int] | None, history: engine.Columns | None) -> engine.Outcomes:
        """See ``Engine``."""
        mask = None
        if selected is not None:
            flags = bytearray(b"0" * len(self._programs))
            for number in selected:
                flags[number] = 49
            mask = flags.decode()
        columns = None
        if history is not None:
            columns = self._table(
                {
                    "timestamps": self._table(history.timestamps),
                    "ids": self._table(history.event_ids),
                    "names": self._table(history.event_names),
                    "extras": None if history.extras is None else self._converted(history.extras),
                }
            )
        used = self._lua.get_memory_used()
        if used > _MEMORY_KEPT:
            self._lua.gccollect()
            used = self._lua.get_memory_used()
        # Only around the call: at the limit, lupa's own conversions abort the process. The text that lupa converts for
        # the call has room of its own.
        self._lua.set_max_memory(used + _MEMORY_PER_CALL + self._characters * _BYTES_PER_CHARACTER)
        try:
            packed = self._evaluate(mask, columns, self._clocks, self._begun, *self._values)
        except (lupa.luajit21.LuaError, UnicodeDecodeError) as error:
            self._start()
            raise engine.EngineError(f"{type(error).__name__}: {error}") from error
        finally:
            self._lua.set_max_memory(_NO_LIMIT)
        return {} if packed is None else _unpacked(packed)

    def close(self) -> None:
        """See ``Engine``: the runtime is memory only, which goes with this object."""

    def _converted(self, value: Any) -> Any:
        try:
            return self._table(value, recursive=True)
        except OverflowError:
            return self._table(rounded(value), recursive=True)


# The outcomes without a text, by kind: made once, as many events have some.
_TEXTLESS: Final = {kind.value: engine.Outcome(kind) for kind in engine.OutcomeKind}


def _unpacked(packed: str) -> engine.Outcomes:
    """The outcomes that ``evaluate`` of ``sandbox.lua`` returns, four texts an outcome."""
    parts = iter(packed.split("\0"))
    return {
        int(number) - 1: engine.Outcome(engine.OutcomeKind(kind), text, float(ms or 0))
        if text or ms
        else _TEXTLESS[kind]
        for number, kind, text, ms in zip(parts, parts, parts, parts, strict=True)
    }


def rounded(value: Any) -> Any:
    """A JSON value whose integers Lua can take: it has doubles only, and rounds beyond 2^53 anyway."""
    if type(value) is int:
        return value if -(2**53) <= value <= 2**53 else _double(value)
    if type(value) is dict:
        return {name: rounded(inner) for name, inner in value.items()}
    if type(value) is list:
        return [rounded(inner) for inner in value]
    return value


def _double(integer: int) -> float:
    try:
        return float(integer)
    except OverflowError:
        return math.inf if integer > 0 else -math.inf


def check_source(source: str, name: str) -> engine.SourceCheck:
    """See ``SourceChecker``."""
    _, compile_program, *_ = _load_sandbox()
    problem, is_expression, unknown_names, _ = _compiled(compile_program, engine.Program(name, source))
    return engine.SourceCheck(problem, tuple(unknown_names.split()), is_expression)


def _compiled(compile_program: Any, program: engine.Program) -> tuple[str | None, bool, str, str]:
    """What ``compile`` of ``sandbox.lua`` returns for a program. Where it fails, that is the problem of the program."""
    try:
        compiled: tuple[str | None, bool, str, str] = compile_program(
            program.source, program.name, program.wants_value, program.clock
        )
    except (lupa.luajit21.LuaError, UnicodeError) as error:
        return f"{type(error).__name__}: {str(error).encode('ascii', 'backslashreplace').decode()}", False, "", ""
    return compiled


def _load_sandbox() -> tuple[Any, Any, Any, Any]:
    """A Lua runtime, and what ``sandbox.lua`` returns in it."""
    lua = lupa.luajit21.LuaRuntime(
        register_eval=False,
        register_builtins=False,
        unpack_returned_tuples=True,
        attribute_filter=_refuse,
        # A limit has to be named here for set_max_memory to work at all; the one in force is set around each call.
        max_memory=_NO_LIMIT,
    )

    def load(file: str, *arguments: Any) -> Any:
        # All files have one chunk name, which ``outcome`` of sandbox.lua removes from messages.
        return lua.execute(_source_of(file), *arguments, name="=sandbox")

    budget, study, rewrite = load("sandbox_budget.lua"), load("sandbox_bytecode.lua"), load("sandbox_rewrite.lua")
    order = load("sandbox_order.lua", budget)
    texts = load("sandbox_text.lua", budget, order)
    bucket, calendar = load("sandbox_bucket.lua", budget, texts), load("sandbox_calendar.lua", texts)
    past = load("sandbox_past.lua", budget, texts)
    library = load("sandbox_library.lua", budget, order, texts, bucket, calendar.days_between, past)
    return lua, *load("sandbox.lua", budget, order, texts, library, study, rewrite, calendar, past)


@functools.cache
def _source_of(file: str) -> str:
    return resources.files("transforms.adapters.lua").joinpath(file).read_text("utf-8")


def _refuse(*_: object) -> None:
    raise AttributeError("rules have no access to Python objects")
