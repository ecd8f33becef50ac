"""How ``--help`` looks: names in one column, their text in the other, on a terminal and in a pipe alike."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text


class HelpPage:
    """cyclopts' protocol of a help formatter."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the first line."""
        _show(console, Text(f"Usage: {_plain(usage).strip()}"), "")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what the command does; lines are broken anew."""
        for paragraph in _plain(description).split("\n\n"):
            _show(console, Text(" ".join(paragraph.split())), "")

    def __call__(self, console: Console, options: ConsoleOptions, panel: Any) -> None:
        """Print the commands or options of a group."""
        if not panel.entries:
            return
        grid = Table.grid(padding=(0, 2))
        for entry in panel.entries:
            notes = ["required"] if entry.required else [f"default: {entry.default}"] if entry.default else []
            text = " ".join(_plain(entry.description).split()).removesuffix(".")
            grid.add_row(
                Text(f"  {', '.join(entry.display_labels_with_metavar)}"),
                Text(f"{text} ({'; '.join(notes)})".strip() if notes else text),
            )
        _show(console, Text(f"{panel.title}:", style="bold"), grid, "")


def _show(console: Console, *parts: Any) -> None:
    with console.capture() as captured:
        console.print(*parts, sep="\n", highlight=False)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _plain(text: Any) -> str:
    """The text of whatever cyclopts gives, without styles."""
    if text is None or isinstance(text, str):
        return text or ""
    if isinstance(text, Text):
        return text.plain
    console = Console(width=100_000, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(text, end="")
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip()
