"""Parses Markdown pages: fenced blocks, headings, links, code in the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Documents from outside, kept as they came: their diagrams, links and names are not ours to correct.
HANDED_OVER = frozenset(ROOT / "docs" / "spec" / name for name in ("architecture.md", "event-dispatch.md"))
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([\w+-]*)\s*$")
_LIKE_A_FENCE = re.compile(r"[\s>]*(```|~~~)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
_LIST_ITEM = re.compile(r"^\s*([-*+]|\d+\.) ")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*([^()\s]+)(?:\s+\"[^\"]*\")?\s*\)", re.DOTALL)
_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)


class PageError(AssertionError):
    """Something on a page is wrong. The message begins with file and line."""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is the line of its fence, counted from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """File and line, in the form that editors open."""
        return f"{self.page}:{self.line}"

    @property
    def first_line(self) -> str:
        """The first line that is not empty; tables of checks name blocks by it."""
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")


@dataclass(frozen=True)
class Occurrence:
    """A link's target or a piece of code, and the line where it begins."""

    line: int
    text: str


@dataclass(frozen=True)
class Page:
    """A page: its path from the root of the repository, and its text."""

    name: str
    text: str

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Fenced blocks.

        Raises:
            PageError: a block is not closed, is only indented, or has a fence that the walker cannot read.
        """
        return tuple(self._blocks_and_prose[0])

    @cached_property
    def prose(self) -> str:
        """The text with an empty line for each line of a block, so that line numbers stay."""
        return self._blocks_and_prose[1]

    @cached_property
    def _blocks_and_prose(self) -> tuple[list[Block], str]:
        blocks: list[Block] = []
        prose: list[str] = []
        lines = iter(enumerate(self.text.splitlines(), 1))
        in_list = False
        for number, line in lines:
            fence = _FENCE.match(line)
            if fence is None:
                if _LIKE_A_FENCE.match(line):
                    raise PageError(f"{self.name}:{number}: a fence with more than a language, or in a quotation")
                prose.append(line)
                if line.strip():
                    in_list = bool(_LIST_ITEM.match(line)) or (in_list and line.startswith(" "))
                blank_before = len(prose) > 1 and not prose[-2].strip()
                if line.startswith("    ") and line.strip() and blank_before and not in_list:
                    raise PageError(f"{self.name}:{number}: an indented block: fence it and name its language")
                continue
            inside = []
            for _, inner in lines:
                if inner.strip() == fence[2]:
                    break
                inside.append(inner.removeprefix(fence[1]))
            else:
                raise PageError(f"{self.name}:{number}: the block is not closed")
            blocks.append(Block(self.name, number, fence[3], "\n".join(inside) + "\n"))
            prose += [""] * (len(inside) + 2)
        return blocks, "\n".join(prose)

    @cached_property
    def anchors(self) -> frozenset[str]:
        """The anchors of the headings, as Git hosts make them."""
        seen: Counter[str] = Counter()
        anchors = set()
        for line in self.prose.splitlines():
            heading = _HEADING.match(line)
            if heading is not None:
                name = slug(heading[1])
                anchors.add(f"{name}-{seen[name]}" if seen[name] else name)
                seen[name] += 1
        return frozenset(anchors)

    @property
    def links(self) -> Iterator[Occurrence]:
        """Targets of links and pictures."""
        without_code = _CODE.sub(lambda code: re.sub(r"[^\n]", "_", code[0]), self.prose)
        for link in _LINK.finditer(without_code):
            start, end = link.span(1)
            yield Occurrence(self._line_at(start), self.prose[start:end])

    @property
    def codes(self) -> Iterator[Occurrence]:
        """Code in the text, line breaks as spaces, tables' ``\\|`` as ``|``."""
        for code in _CODE.finditer(self.prose):
            yield Occurrence(self._line_at(code.start()), " ".join(code[2].split()).replace("\\|", "|"))

    def _line_at(self, position: int) -> int:
        return self.prose.count("\n", 0, position) + 1


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


def pages() -> list[Page]:
    """Every page of the repository that people read."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for folder in ("infra", "pipeline", "runners", "tests", "transforms", "examples"):
        paths += [path for path in (ROOT / folder).rglob("*.md") if not {"target", ".terraform"} & set(path.parts)]
    paths = [path for path in paths if path not in HANDED_OVER]
    return [Page(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in sorted(paths)]


PAGES = pages()
