"""Reading rule files for commands: problems go to standard error."""

from __future__ import annotations

from pathlib import Path

from pipeline.console import complain, say, warn
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.files import RuleFiles, read_rule_files
from transforms.domain.simulation.case_runner import dry_call


def usable_rules(path: Path, warn_of_dry_calls: bool = True) -> RuleFiles | None:
    """Read rule files; None after printing every problem and their number.

    With ``warn_of_dry_calls`` a rule that fails on an event without further fields is a warning.
    """
    files = read_rule_files(path, LuaEngines())
    if warn_of_dry_calls:
        for loaded in files.rules:
            message = dry_call(loaded, LuaEngines())
            if message is not None:
                # A warning only: a rule may rely on fields that all events of its kind have.
                warn(f"{loaded.rule.name} on an event without further fields: {message}")
    for problem in files.problems:
        complain(str(problem))
    if files.problems:
        say(count_of(len(files.problems), "problem"))
    return None if files.problems else files


def count_of(number: int, noun: str) -> str:
    """The number with its noun in singular or plural, as ``2 rules``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
