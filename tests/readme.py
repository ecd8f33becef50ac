"""Writes the generated part of the README; ``python -m tests.readme``."""

import re
from pathlib import Path

from pipeline.options import options_table

README = Path(__file__).parent.parent / "README.md"
_PART = re.compile(r"(<!-- options:.*?-->\n).*?(<!-- /options -->)", re.DOTALL)


def expected(text: str) -> str:
    """The README as it should be."""
    return _PART.sub(lambda found: f"{found[1]}\n{options_table()}\n\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(expected(README.read_text("utf-8")), "utf-8")
