"""``event-trigger init``: writes a first configuration file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pipeline.console import out
from pipeline.errors import OptionError
from pipeline.launch.options.config_file import NAME


def init(file: Path = Path(NAME), /) -> None:
    """Write a configuration file with the profiles local, staging and production, and a comment for each part.

    0: written; 2: the file is there already, or cannot be written.

    Args:
        file: the file.
    """
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(template())
    except FileExistsError:
        raise OptionError(f"{file} is there already: give another name, or remove it") from None
    out(f"wrote {file}; next: event-trigger config show")


def template() -> str:
    """The file that is written."""
    return resources.files("pipeline.launch.options").joinpath("template.yaml").read_text("utf-8")
