"""The walker of pages: it finds blocks, links, code and anchors, and misses none."""

from __future__ import annotations

import pytest

from tests.docs.pages import PAGES, Page, PageError, slug


def page(text: str) -> Page:
    return Page("made/up.md", text)


def test_blocks_have_their_language_text_and_line() -> None:
    blocks = page("# A\n\n```sh\nls # x\n\n```\n\n- item\n\n     ```yaml\n     a: 1\n     ```\n~~~\n```\n~~~\n").blocks
    assert [(block.place, block.language, block.text) for block in blocks] == [
        ("made/up.md:3", "sh", "ls # x\n\n"),
        ("made/up.md:10", "yaml", "a: 1\n"),
        ("made/up.md:13", "", "```\n"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\n\n```sh\nls\n", r"made/up.md:3: the block is not closed"),
        ("text\n\n    ls\n", r"made/up.md:3: an indented block"),
        ("text\n```sh title=x\nls\n```\n", r"made/up.md:2: a fence with more"),
        ("> ```sh\n> ls\n> ```\n", r"made/up.md:1: a fence .* in a quotation"),
    ],
)
def test_blocks_that_have_no_check_are_refused(text: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        assert page(text).blocks


def test_text_indented_below_a_list_item_is_no_block() -> None:
    assert page("- item\n\n    more of it\n\n  and more\n").blocks == ()


def test_links_are_found_over_line_ends_and_not_in_code() -> None:
    text = "[a](b.md#c) and ![pic](d.svg)\n[two\nlines](e.md) `[no](f.md)`\n```sh\n[no](g.md)\n```\n[`x`](h.md)"
    links = [(link.line, link.text) for link in page(text).links]
    assert links == [(1, "b.md#c"), (1, "d.svg"), (3, "e.md"), (7, "h.md")]


def test_code_is_found_over_line_ends_and_not_in_blocks() -> None:
    text = "`a` ``b`c`` `d\ne` | `f\\|g` |\n```sh\n`no`\n```\n`h`\n"
    assert [(code.line, code.text) for code in page(text).codes] == [
        (1, "a"), (1, "b`c"), (1, "d e"), (2, "f|g"), (6, "h")
    ]  # fmt: skip


def test_anchors_are_those_that_git_hosting_makes() -> None:
    text = "# Try it\n## `status`, and *more*: a/b\n## Try it\n```\n# no\n```\n### See [x](y.md)!\n"
    assert page(text).anchors == {"try-it", "status-and-more-ab", "try-it-1", "see-x"}
    assert slug("How often, when, and in what order") == "how-often-when-and-in-what-order"


def test_all_pages_are_walked() -> None:
    names = {known.name for known in PAGES}
    assert {"README.md", "ARCHITECTURE.md", "docs/rules.md", "docs/measurements/decisions.md"} <= names
    assert sum(len(known.blocks) for known in PAGES) > 30
