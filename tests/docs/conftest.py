"""Pages whose commands are run, once for all tests that look at what is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

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
    return read_one_after_another(RUN, checkout(tmp_path_factory.mktemp("reader")))


def read_one_after_another(names: Iterable[str], place: Path) -> Mapping[str, str]:
    """Run the shell blocks of pages in one folder; what each prints, by its place."""
    pages = {page.name: page for page in PAGES}
    outputs: dict[str, str] = {}
    for name in names:
        outputs |= outputs_of(run_blocks(pages[name]), place, deadline_s=240)
    return outputs
