"""README, quick start and guide in one folder, in another order than tests/docs reads them, and again."""

from __future__ import annotations

from pathlib import Path

from tests.docs.conftest import read_one_after_another, shell_blocks
from tests.docs.outputs import GUIDE, OF_DEMO, QUICK_START, README, RUN, must_show
from tests.docs.pages import PAGES
from tests.docs.session import checkout


def test_what_a_page_shows_does_not_depend_on_the_pages_read_before(tmp_path: Path) -> None:
    printed = read_one_after_another((GUIDE, README, QUICK_START, GUIDE), checkout(tmp_path))
    shown = [block for page in PAGES if page.name in RUN for block in page.blocks if not block.language]
    for block in shown:
        if not block.text.startswith(OF_DEMO):
            before = [shell for shell in shell_blocks(block.page) if shell.line < block.line][-1]
            must_show(block, printed[before.place])
