"""The quick start, run once for all tests that look at what it prints."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.docs.outputs import QUICK_START
from tests.docs.pages import PAGES, Block
from tests.docs.session import checkout, outputs_of


def shell_blocks(page: str) -> list[Block]:
    """The shell blocks of a page, in order."""
    return [block for one in PAGES if one.name == page for block in one.blocks if block.language == "sh"]


@pytest.fixture(scope="session")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What each shell block of the quick start prints, by place; all but the demo, which ``long`` has."""
    blocks = [block for block in shell_blocks(QUICK_START) if "make demo" not in block.text]
    return outputs_of(blocks, checkout(tmp_path_factory.mktemp("quick-start")), deadline_s=240)
