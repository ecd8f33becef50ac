"""The README says what is so."""

import re

from pipeline.options import parse
from tests.integration.jobs import ROOT
from tests.readme import README, expected


def test_the_options_table_is_the_one_the_code_gives() -> None:
    text = README.read_text("utf-8")

    assert text == expected(text), "run make readme"


def test_the_command_for_an_existing_flink_is_accepted() -> None:
    block = next(
        block for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if "HOST:8081" in block
    )
    arguments = block.replace("\\\n", " ").split("-m pipeline", 1)[1].split()

    assert parse(arguments).flink_master == "HOST:8081"


def test_every_make_target_it_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"`?make ([a-z-]+)", README.read_text())) <= targets
