"""Where rules' Lua runs: in this process, or in processes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transforms.adapters.lua.sandbox import Sandbox, check_source
from transforms.adapters.lua.sandbox_process import SandboxProcess
from transforms.domain.rules.engine import Engine, Program, SourceCheck

Isolation = Literal["none", "process"]


@dataclass(frozen=True, slots=True)
class LuaEngines:
    """Makes engines and checks sources: ``EngineFactory`` and ``SourceChecker`` of the domain.

    With ``isolation="process"`` each engine starts a process of its own.
    """

    isolation: Isolation = "none"

    def engine(self, programs: Sequence[Program]) -> Engine:
        """See ``EngineFactory``."""
        return SandboxProcess(programs) if self.isolation == "process" else Sandbox(programs)

    def check(self, source: str, name: str) -> SourceCheck:
        """See ``SourceChecker``. Nothing runs, so this process does it with either isolation."""
        return check_source(source, name)
