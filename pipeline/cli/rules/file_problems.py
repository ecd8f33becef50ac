"""Problems of rule files on standard error, for all commands that read rule files."""

from __future__ import annotations

import sys

from pipeline.console import one_line
from transforms.domain.rules.files import RuleFiles


def show_problems(files: RuleFiles) -> bool:
    """Print every problem, then their number; returns whether there are any."""
    for problem in files.problems:
        sys.stderr.write(f"error: {one_line(str(problem))}\n")
    if files.problems:
        sys.stderr.write(f"{count_of(len(files.problems), 'problem')}\n")
    return bool(files.problems)


def count_of(number: int, noun: str) -> str:
    """The number with its noun in singular or plural, as ``2 rules``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
