"""What the domain needs of Lua: an engine that runs compiled programs, and a check of one source text.

``transforms/adapters/lua`` implements both. Rules use Lua for filters, for the conditions of sequences and for the keys
of cooldowns; each such text is one program.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from transforms.domain.base.errors import EventTriggerError


class Program(NamedTuple):
    """A Lua source text and the name that Lua's messages call it by.

    With ``wants_value`` the program computes a value (a cooldown's key), otherwise a condition. ``clock`` is the place
    of its local time in the ``clocks`` of ``Engine.set_inputs``.
    """

    name: str
    source: str
    wants_value: bool = False
    clock: int = 0


class Columns(NamedTuple):
    """A user's history, oldest event first, one list a column.

    ``timestamps`` are ms since the epoch. ``extras`` are the further fields of each event, None if no event has any.
    """

    timestamps: list[int]
    event_ids: list[str]
    event_names: list[str]
    extras: list[dict[str, Any]] | None


# The name of a text that programs read: why there is no fetched profile.
ENRICHMENT: Final = "enrichment"

# Names of what programs read by the ``clocks`` of an event.
LOCAL_TIME: Final = "local_time"
PAST_NAMES: Final = ("count", "last", "distinct", "history_since")  # what else asks about the history
TIME_NAMES: Final = (LOCAL_TIME, *PAST_NAMES)

# The fields that programs read of ``event``, ``user`` and ``visit``; None: all fields, or ``enrichment`` itself.
Reads = dict[str, list[str] | None]


class OutcomeKind(enum.Enum):
    """What became of a program that ran, apart from a cheap condition that is false, which has no outcome."""

    ALLOWED = "allowed"  # the condition is true
    NOT_ALLOWED = "not_allowed"  # the condition is false; only of a program that took measurable time
    VALUE = "value"
    ERROR = "error"
    LIMIT = "limit"  # it used up its CPU time or its memory
    NEEDS_HISTORY = "needs_history"  # it has to run again, with the history


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one program came to.

    ``text`` is the value, or the message of an error or limit: ASCII, printable. ``ms`` is the time that it took if it
    was long enough to be measured.
    """

    kind: OutcomeKind
    text: str = ""
    ms: float = 0.0


# By program number. A program that is missing did not run, or is a condition that is false and was cheap.
Outcomes = Mapping[int, Outcome]


class EngineError(EventTriggerError):
    """The engine itself failed, so that no program has an outcome. No program should be able to cause this."""


class CompileError(EventTriggerError, ValueError):
    """Program ``number`` does not compile; the message is Lua's."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Engine(Protocol):
    """Programs, compiled once, in this process or in one of their own. Not thread-safe."""

    @property
    def reads(self) -> Reads:
        """What the programs read of the inputs."""

    def set_inputs(
        self,
        event: dict[str, Any],
        user: dict[str, Any],
        visit: dict[str, Any],
        enrichment: str = "",
        clocks: Sequence[int] = (),
        begun: dict[str, Any] | None = None,
    ) -> None:
        """Set what the next runs are about. Only the fields in ``reads`` have to be there.

        ``clocks`` is for programs with ``TIME_NAMES``: the event's time, and what clocks of some zones showed then,
        as ms since the epoch. ``begun`` is the event that began a sequence, for conditions of its steps.
        """

    def run(self, selected: Collection[int] | None, history: Columns | None) -> Outcomes:
        """Run programs on the inputs.

        Args:
            selected: numbers of the programs to run; None: every condition, and no program that wants a value.
            history: the user's history; without it, a program that reads the history has to run again.

        Raises:
            EngineError: no program has an outcome.
        """

    def close(self) -> None:
        """Free what the engine holds outside this process. It cannot run afterwards."""


class EngineFactory(Protocol):
    """Makes engines; it knows where their programs run."""

    def engine(self, programs: Sequence[Program]) -> Engine:
        """Compile programs.

        Raises:
            CompileError: the first program that does not compile.
            EngineError: the engine does not start.
        """


class SourceCheck(NamedTuple):
    """What is known of a source text before it runs.

    Attributes:
        problem: why it does not compile, in Lua's words; None if it does.
        unknown_names: global names that it reads and that neither it nor the sandbox defines.
        is_expression: whether it is one expression, and not a body with ``return``.
    """

    problem: str | None
    unknown_names: tuple[str, ...] = ()
    is_expression: bool = False


class SourceChecker(Protocol):
    """Checks Lua without running it."""

    def check(self, source: str, name: str) -> SourceCheck:
        """Compile a source text as an engine would; ``name`` is what the messages call it."""
