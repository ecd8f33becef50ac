"""How every command's help is laid out, and that its flags are taken in full only."""

from __future__ import annotations

import argparse


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
