"""Pages whose commands are run, once for all tests that look at what is printed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.docs.outputs import RUN, run_blocks
from tests.docs.pages import PAGES, Block
from tests.docs.session import checkout, outputs_of


def shell_blocks(page: str) -> list[Block]:
    """The shell blocks of a page, in order."""
    return [block for known in PAGES if known.name == page for block in known.blocks if block.language == "sh"]


@pytest.fixture(scope="session")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What each shell block that is run prints, by its place."""
    outputs: dict[str, str] = {}
    for page in PAGES:
        if page.name in RUN:
            outputs |= outputs_of(run_blocks(page), checkout(tmp_path_factory.mktemp("reader")), deadline_s=240)
    return outputs
