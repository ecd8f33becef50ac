"""Commands of a command, as ``rules test``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction["_Subcommand"]


class _Subcommand(argparse.ArgumentParser):
    """Takes flags in full only; argparse does not hand that on from the parser above."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | given)


def subcommands(parser: argparse.ArgumentParser) -> Subcommands:
    """Where to add the subcommands of ``parser``; one of them has to be given."""
    return parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Subcommand)
