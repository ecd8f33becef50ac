"""Foreign texts cannot control a terminal, hide or reorder what is printed, or add lines."""

from __future__ import annotations

import json

import pytest

from transforms.domain.base.terminal_text import json_line, lines_of, one_line

# C0, DEL, C1, bidirectional overrides and isolates, zero width, separators, tags, a lone surrogate.
POISON = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x00",
    "\r",
    "\n",
    "\x08",
    "\x7f",
    "\x9b31m",
    "\x85",
    "\u202e",
    "\u2066",
    "\u200b",
]
POISON += ["\u200e", "\u2028", "\u2029", "\ufeff", "\u00ad", "\U000e0041", "\ud800"]


@pytest.mark.parametrize("text", POISON, ids=ascii)
def test_what_controls_a_terminal_is_escaped(text: str) -> None:
    given = f"ü{text}é"
    assert one_line(given).isprintable()
    assert one_line(given).startswith("ü\\")
    assert all(line.isprintable() for line in lines_of(f"{given}\nb").split("\n"))


@pytest.mark.parametrize("text", POISON, ids=ascii)
def test_a_json_document_keeps_its_value(text: str) -> None:
    document = json.dumps({text: [text, "ü 世界"]}, ensure_ascii=False)
    assert json_line(document).isprintable()
    assert "ü 世界" in json_line(document)
    assert json.loads(json_line(document)) == {text: [text, "ü 世界"]}


def test_other_texts_are_as_they_were() -> None:
    text = 'ü 世界 🎉 "\\"'
    assert one_line(text) == json_line(text) == lines_of(text) == text
    assert lines_of("a\nb\n") == "a\nb\n"
