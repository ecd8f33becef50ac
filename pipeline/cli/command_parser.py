"""How every command's help is laid out, that its flags are taken in full only, and how it says what is wrong."""

from __future__ import annotations

import argparse

from pipeline.errors import OptionError


class CommandParser(argparse.ArgumentParser):
    """A parser of a command's flags; ``usage`` is what follows ``program``, ``description`` is shown as it stands."""

    def __init__(self, program: str, usage: str, description: str) -> None:
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )


class RaisingParser(CommandParser):
    """A parser of a command's flags whose errors are an ``OptionError``."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Not argparse's own two lines."""
        raise OptionError(f"{message}; {self.prog} --help lists what there is")
