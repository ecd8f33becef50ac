"""Subcommands, such as ``rules test``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction["_Subcommand"]


class _Subcommand(argparse.ArgumentParser):
    """Takes no abbreviated flags; argparse does not inherit that setting from the parent parser."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | arguments)


def subcommands(parser: argparse.ArgumentParser) -> Subcommands:
    """Give ``parser`` subcommands, one of which is required; returns the object to add them to."""
    return parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Subcommand)
