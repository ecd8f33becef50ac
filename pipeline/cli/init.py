"""``python -m pipeline init``: writes a first configuration file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from pipeline.cli.command_line import CommandParser, exit_code_of
from pipeline.errors import OptionError
from pipeline.launch.options.config_file import NAME

_DESCRIPTION: Final = f"""\
Writes {NAME} with the profiles local, staging and production, and a comment for each part.
0: written; 2: the file is there already, or cannot be written."""


def main(argv: Sequence[str]) -> int:
    """Write the file; the exit code."""
    parser = CommandParser("init", "[FILE]", _DESCRIPTION)
    parser.add_argument("file", type=Path, nargs="?", default=Path(NAME), metavar="FILE", help=f"default: {NAME}")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _init(arguments))


def _init(arguments: argparse.Namespace) -> int:
    file: Path = arguments.file
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(template())
    except FileExistsError:
        raise OptionError(f"{file} is there already: give another name, or remove it") from None
    except OSError as error:
        raise OptionError(f"{file}: {error.strerror}") from None
    sys.stdout.write(f"wrote {file}; next: python -m pipeline config show\n")
    return 0


def template() -> str:
    """The file that is written."""
    return resources.files("pipeline.launch.options").joinpath("template.yaml").read_text("utf-8")
