"""docs/rules.md and examples/rules match the code."""

from __future__ import annotations

import re
from pathlib import Path

import lupa.luajit21
import pytest

from pipeline.cli.main import main
from tests.builders import filter_set, read_rule_files, rule
from tests.integration.jobs import ROOT
from tests.transforms.domain.rules.test_filters import evaluate
from transforms.adapters.lua.sandbox import check_source
from transforms.domain.base.durations import Duration
from transforms.domain.base.yaml_documents import read_documents
from transforms.domain.rules.cases import Case
from transforms.domain.rules.model import Rule

TEXT = (ROOT / "docs/rules.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = ROOT / "examples/rules"


# What Lua itself does not have.
OWN = ("bucket", "count", "days_between", "distinct", "last")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def library_names() -> set[str]:
    """Every name that LuaJIT's own libraries have."""
    lua = lupa.luajit21.LuaRuntime()
    names = set()
    for name, value in lua.globals().items():
        names.add(name)
        if name not in ("_G", "package", "python") and lupa.luajit21.lua_type(value) == "table":
            names |= {f"{name}.{inner}" for inner in value}
    return names


def test_the_names_of_lua_are_those_that_there_are() -> None:
    documented = set(
        re.findall(r"`([a-z_.]+)`", section("The filter").partition("there are\n")[2].partition("\nNo")[0])
    )
    candidates = sorted(name for name in library_names() if re.fullmatch(r"[a-z_A-Z]+(\.[a-z]+)?", name))
    there = {name for name in [*candidates, *OWN] if check_source(name, "n")[:2] == (None, ())}
    offered = {name for name in there if "." not in name and name not in ("math", "string", "table")}
    libraries = [name for name in there if name.partition(".")[0] in ("math", "string", "table") and "." in name]
    filters = filter_set(tuple(rule(name.replace(".", "_"), f"{name} ~= nil") for name in libraries))
    allowed = {one.name for one in evaluate(filters).allowed}
    assert offered | {name for name in libraries if name.replace(".", "_") in allowed} == documented


def test_the_first_example_is_a_rule_whose_tests_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text(BLOCKS[0])
    assert main(["rules", "test", str(tmp_path)]) == 0
    assert "1 case, 0 failed" in capsys.readouterr().out


def test_the_example_of_tests_is_a_case() -> None:
    (block,) = [block for block in BLOCKS if block.startswith("tests:")]
    (document,) = read_documents(block)
    assert [Case.model_validate(case).name for case in document.value["tests"]] == [
        "the second view within a visit fires"
    ]


def test_every_field_of_time_is_shown_and_has_that_shape() -> None:
    (block,) = [block for block in BLOCKS if "quiet_hours:" in block]
    parts = re.split(r"\n(?=[a-z_]+:)", block.strip())
    shown = [next(iter(read_documents(part))).value for part in parts]
    assert {name for document in shown for name in document} == {
        "active",
        "sequence",
        "cooldown",
        "cap",
        "quiet_hours",
        "time_zone",
    }
    for document in shown:
        rule(**document)
    cooldown = next(document for document in shown if "cooldown" in document)
    assert rule(**cooldown).cooldown.time == Duration.parse("1d")  # type: ignore[union-attr]


def test_every_field_is_in_a_table() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", section("Fields"), re.MULTILINE))
    assert rows - {"debug", "kafka", "webhook"} == {*Rule.model_fields, "filter_file", "tests"}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", section("Tests"), re.MULTILINE)) == set(Case.model_fields)


def test_the_examples_pass_their_tests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "test", str(EXAMPLES)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(len(loaded.cases) >= 2 for loaded in read_rule_files(EXAMPLES).rules)


SEVEN = (
    *("win_back", "cart_of_several_items", "one_offer_a_day", "german_office_hours", "offer_with_holdout"),
    *("three_views_of_a_category", "paid_and_not_rated"),
)


@pytest.mark.parametrize("name", SEVEN)
def test_an_everyday_rule_is_said_in_a_few_lines(name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text("utf-8").partition("\ntests:")[0]
    assert len(text.strip().splitlines()) < 15
    guide = (ROOT / "docs/writing-rules.md").read_text("utf-8")
    assert f"`examples/rules/{name}.yaml`" in guide
