"""Checks blocks by their language, with the program that reads such text in production."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from pipeline.launch.options.resolving import check_config
from tests.builders import read_rule_files, rule
from tests.docs.commands import check, commands_of
from tests.docs.pages import ROOT, Block, PageError
from tests.docs.parsers import CommandError
from tests.infra.terraform import environment
from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.lua.sandbox import check_source
from transforms.domain.base.yaml_documents import YamlError, read_documents
from transforms.domain.events.event import EventLimits, parse_event
from transforms.domain.events.record import Record
from transforms.domain.rules.cases import Case
from transforms.domain.rules.group_files import GroupsDocument
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import run_cases
from transforms.domain.webhooks.destinations import load_destinations
from transforms.domain.webhooks.url_policy import EgressPolicy

_LATEST_MS: Final = 4_102_444_800_000  # the year 2100: examples of events are older
# Below these keys the document is up to the reader.
_OPEN: Final = frozenset({"parameters", "profile", "userProfile", "custom_params"})


def check_block(block: Block) -> None:
    """Check a block.

    Raises:
        PageError: the block is wrong, or there is no check for its language; with file and line.
    """
    checker = CHECKS.get(block.language)
    if checker is None:
        known = ", ".join(sorted(CHECKS))
        raise PageError(
            f"{block.place}: a block of language {block.language!r} has no check: use one of {known}, or add a check "
            "to tests/docs/blocks.py; output of a command has no language, and a line in tests/docs/outputs.py"
        )
    try:
        checker(block)
    except PageError:
        raise
    except Exception as error:
        raise PageError(f"{block.place}: {type(error).__name__}: {error}") from error


# Shell


def _shell(block: Block) -> None:
    folder = ROOT
    for command in commands_of(block.text):
        try:
            folder = check(command, folder)
        except CommandError as error:
            raise PageError(f"{block.page}:{block.line + 1 + command.line}: {error}") from error
        if command.heredoc is not None:
            _heredoc(block, command.line, command.written_to, command.heredoc)


def _heredoc(block: Block, line: int, written_to: str | None, text: str) -> None:
    """Check a file that a command writes, by the suffix of its name."""
    if written_to is None or not (language := _ENDINGS.get(Path(written_to).suffix)):
        known = ", ".join(_ENDINGS)
        raise PageError(f"{block.place}: a here-document goes to {written_to!r}, checked are files ending in {known}")
    CHECKS[language](Block(block.page, block.line + 1 + line, language, text))


# Data


def _json(block: Block) -> None:
    try:
        documents = [orjson.loads(block.text)]
    except orjson.JSONDecodeError:
        documents = [orjson.loads(line) for line in block.text.splitlines() if line.strip()]
    for document in documents:
        check_json(document, block.place)


def check_json(document: Any, place: str) -> None:
    """Check a JSON document: the pipeline accepts an event; the code has all keys of any other document.

    Raises:
        PageError: the code does not have a key.
    """
    if isinstance(document, dict) and {"event_id", "event_name"} <= document.keys():
        value = json.dumps(document).encode()
        parse_event(Record(0, 0, 0, document["user_id"].encode(), value), _LATEST_MS, EventLimits())
        return
    unknown = [key for key in _keys(document) if not re.search(rf"\b{re.escape(key)}\b", _code())]
    if unknown:
        raise PageError(f"{place}: the code knows nothing called {', '.join(unknown)}")


def _keys(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            if key not in _OPEN:
                yield from _keys(value)
    elif isinstance(document, list):
        for item in document:
            yield from _keys(item)


@cache
def _code() -> str:
    paths = [
        path
        for folder in ("pipeline", "transforms", "runners", "infra")
        for ending in ("py", "java", "lua", "tf", "yml", "sh")
        for path in (ROOT / folder).rglob(f"*.{ending}")
        if not {"target", ".terraform"} & set(path.parts)
    ]
    return "\n".join(path.read_text("utf-8") for path in paths)


def _yaml(block: Block) -> None:
    if all(line.startswith("#") for line in block.text.splitlines()):
        _modeline(block)
        return
    try:
        documents = [document.value for document in read_documents(block.text)]
    except YamlError as error:
        if "twice" not in str(error):
            raise PageError(f"{block.page}:{block.line + error.line}: {error}") from error
        # Several ways to write the same field, one below the other.
        parts = re.split(r"\n(?=[a-z_]+:)", block.text.strip())
        documents = [document.value for part in parts for document in read_documents(part)]
    if any(isinstance(document, dict) and {"name", "actions"} <= document.keys() for document in documents):
        _rules(block)
        return
    for document in documents:
        _yaml_document(block, document)


def _yaml_document(block: Block, document: Any) -> None:
    keys = set(document) if isinstance(document, dict) else set()
    if keys == {"destinations"}:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "destinations.yaml")
            path.write_text(block.text, "utf-8")
            load_destinations(path, EgressPolicy())
    elif keys & {"profiles", "kafka_property", "runner", "extends"}:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "event-trigger.yaml")
            path.write_text(block.text, "utf-8")
            if problems := check_config(path):
                raise PageError(f"{block.place}: {problems[0]}")
    elif keys == {"groups"}:
        GroupsDocument.model_validate(document)
    elif keys in ({"tests"}, {"rule", "tests"}):
        for case in document["tests"]:
            Case.model_validate(case)
    elif keys and keys <= set(Rule.model_fields):
        rule(**document)
    elif keys and keys <= set(Case.model_fields):
        Case.model_validate({"name": "made up", "events": [{}], "expect": "nothing"} | document)
    else:
        raise PageError(f"{block.place}: YAML of a kind that tests/docs/blocks.py does not know, with {sorted(keys)}")


def _rules(block: Block) -> None:
    """Rules are good, and their cases pass."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(block.text, "utf-8")
        for name in re.findall(r"^filter_file: *(\S+)", block.text, re.MULTILINE):
            (path.parent / name).write_text("return true\n")
        found = read_rule_files(path)
        said = [f"{block.page}:{block.line + (one.line or 0)}: {one.detail}" for one in found.problems]
        for loaded in found.rules:
            results = run_cases(loaded, ShardSettings(), LuaEngines())
            said += [f"{block.place}: {one.located.case.name}: {one.differences}" for one in results if not one.passed]
    if said:
        raise PageError("\n".join(said))


def _modeline(block: Block) -> None:
    schema = re.search(r"\$schema=(\S+)", block.text)
    if schema is None or not (ROOT / "examples" / schema[1]).is_file():
        raise PageError(f"{block.place}: YAML of comments alone, checked is a $schema that is there")


def _prometheus(block: Block) -> None:
    """Check YAML of other programs, such as prometheus.yml: a mapping or a list."""
    if not isinstance(yaml.safe_load(block.text), (dict, list)):
        raise PageError(f"{block.place}: no mapping and no list")


# Programs


def _python(block: Block) -> None:
    ast.parse(block.text)


def _lua(block: Block) -> None:
    problem = check_source(block.text, "block").problem
    if problem is not None:
        raise PageError(f"{block.place}: {problem}")


def _ini(block: Block) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block.text if "[" in block.text else f"[none]\n{block.text}")


def _toml(block: Block) -> None:
    tomllib.loads(block.text)


def _hcl(block: Block) -> None:
    """Terraform accepts and formats the block, and modules have the inputs that it sets."""
    shown = subprocess.run(
        ["terraform", "fmt", "-no-color", "-"],
        input=block.text,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode != 0:
        raise PageError(f"{block.place}: terraform fmt: {shown.stderr.strip()}")
    if shown.stdout != block.text:
        raise PageError(f"{block.place}: terraform fmt writes it as\n{shown.stdout}")
    variables = (ROOT / "infra" / "terraform" / "variables.tf").read_text("utf-8")
    inputs = {*re.findall(r'^variable "(\w+)"', variables, re.MULTILINE), "source"}
    unknown = set(re.findall(r"^  (\w+) +=", block.text, re.MULTILINE)) - inputs
    if 'module "cluster"' in block.text and unknown:
        raise PageError(f"{block.place}: infra/terraform has no input {', '.join(sorted(unknown))}")


def _output(block: Block) -> None:
    """Outputs have tests of their own: see ``outputs``."""


CHECKS: Final[Mapping[str, Callable[[Block], None]]] = {
    "": _output,
    "hcl": _hcl,
    "ini": _ini,
    "json": _json,
    "lua": _lua,
    "properties": _ini,
    "python": _python,
    "sh": _shell,
    "toml": _toml,
    "yaml": _yaml,
    "yml": _prometheus,
}
_ENDINGS: Final = {".json": "json", ".jsonl": "json", ".lua": "lua", ".py": "python", ".yaml": "yaml"}
