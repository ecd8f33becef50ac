"""Argument parsers of the commands: one layout of the help, and no abbreviated flags."""

from __future__ import annotations

import argparse

from pipeline.errors import OptionError


class CommandParser(argparse.ArgumentParser):
    """A parser of a command's flags.

    ``usage`` follows ``program`` in the help's first line; ``description`` keeps its line breaks.
    """

    def __init__(self, program: str, usage: str, description: str) -> None:
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )


class RaisingParser(CommandParser):
    """A parser of a command's flags that raises ``OptionError``s."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of printing usage and error and ending the process."""
        raise OptionError(f"{message}; {self.prog} --help lists what there is")
