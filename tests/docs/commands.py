"""Commands of shell blocks, and whether each could be run: parsed by the very programs, without running them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import OptionError
from pipeline.launch.options import parse
from tests.docs.pages import ROOT
from tests.docs.parsers import CommandError, parsed

MAKEFILE: Final = (ROOT / "Makefile").read_text("utf-8")
MAKE_TARGETS: Final = frozenset(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
_PLACEHOLDER: Final = "…"
# What pages write for the options of the reader's launch, and an example of them.
_OPTIONS: Final = "OPTIONS"
_LAUNCH: Final = ("--bootstrap_servers=broker-1:9092", "--rules=rules/")
# What `deploy` takes from Terraform's outputs (submit_flags), for example.
_CLUSTER_FLAGS: Final = ("--runner=FlinkRunner", "--bootstrap_servers=broker-1:9092")
# Where Terraform is run unless a block says otherwise.
_CONFIGURATION: Final = ROOT / "infra" / "terraform" / "examples" / "medium"
_HEREDOC: Final = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


@dataclass(frozen=True)
class Command:
    """A simple command of a block: its words, the line it begins on (from 0), and a here-document if it has one."""

    words: tuple[str, ...]
    line: int
    heredoc: str | None = None
    written_to: str | None = None


def commands_of(text: str) -> Iterator[Command]:
    """The simple commands of a shell block, in order.

    Raises:
        CommandError: bash does not take it.
    """
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise CommandError(f"bash -n: {checked.stderr.strip()}")
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start, logical = number, lines[number]
        while logical.endswith("\\") and number + 1 < len(lines):
            number += 1
            logical = logical[:-1] + lines[number]
        number += 1
        heredoc = _HEREDOC.search(logical)
        body = None
        if heredoc is not None:
            inside = []
            while number < len(lines) and lines[number] != heredoc[2]:
                inside.append(lines[number])
                number += 1
            number += 1
            body = "\n".join(inside) + "\n"
            logical = _HEREDOC.sub("", logical)
        yield from _simple_commands(logical, start, body)


def _simple_commands(line: str, number: int, heredoc: str | None) -> Iterator[Command]:
    tokens = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    tokens.whitespace_split = True
    words: list[str] = []
    written_to, redirected = None, ""
    for token in [*tokens, ";"]:
        if token in ("|", "||", "&&", ";", "&"):
            while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
                words = words[1:]
            if words:
                yield Command(tuple(words), number, heredoc, written_to)
            words, written_to = [], None
        elif set(token) <= set("<>&"):
            redirected = token
        elif redirected:
            written_to = token if ">" in redirected else written_to
            redirected = ""
        else:
            words.append(token)


def check(command: Command, folder: Path) -> Path:
    """Check that a command could run in ``folder``; return the folder for the next command.

    Raises:
        CommandError: it could not, or nothing here knows how to tell.
    """
    program, *arguments = command.words
    if program == "cd":
        return _changed(folder, arguments)
    checker = _PROGRAMS.get(program.rpartition("/")[2])
    if checker is None:
        known = ", ".join(sorted(_PROGRAMS))
        raise CommandError(f"{program!r} is a program that tests/docs/commands.py has no check for; it knows {known}")
    checker(arguments, folder)
    return folder


def _changed(folder: Path, arguments: Sequence[str]) -> Path:
    (where,) = arguments
    for base in (folder, ROOT):
        if (base / where).is_dir():
            return base / where
    raise CommandError(f"cd {where}: there is no such folder")


# Python


def _python(arguments: Sequence[str], folder: Path) -> None:
    if arguments[:1] == ["-c"]:
        compile(arguments[1], "-c", "exec")
    elif arguments[:1] == ["-m"]:
        _module(arguments[1], arguments[2:])
    elif arguments[:1] != ["-"]:
        raise CommandError(f"python {' '.join(arguments)}: -m, -c or - is checked, nothing else")


def _module(module: str, arguments: Sequence[str]) -> None:
    if module == "pipeline":
        check_pipeline(arguments)
    elif module not in ("json.tool", "venv", "http.server") and importlib.util.find_spec(module) is None:
        raise CommandError(f"python -m {module}: there is no such module")


def check_pipeline(arguments: Sequence[str]) -> None:
    """Have arguments of ``event-trigger`` parsed by its real parser.

    Raises:
        CommandError: they are refused.
    """
    arguments = [word for argument in arguments for word in (_LAUNCH if argument == _OPTIONS else (argument,))]
    for argument in arguments:
        if _PLACEHOLDER in argument:
            raise CommandError(f"{argument!r} cannot be typed: write an example of a value")
    command, flags = parsed(arguments)
    if flags is None:
        return
    try:
        if command == "run":
            parse(flags)
        else:
            _check_launch(flags)
    except OptionError as error:
        raise CommandError(str(error)) from None


def _check_launch(flags: Sequence[str]) -> None:
    try:
        parse(flags, rules_required=False)
    except OptionError:
        # Some commands know the runner themselves, and the brokers.
        parse([*_CLUSTER_FLAGS, *flags], rules_required=False)


# Others


def check_make(arguments: Sequence[str], folder: Path = ROOT) -> None:
    """Check that targets exist and that the Makefile uses the given variables.

    Raises:
        CommandError: a target does not exist, or the Makefile does not use a variable.
    """
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if equals:
            if f"$({name})" not in MAKEFILE and f"{name} ?=" not in MAKEFILE and f"$(or $({name})" not in MAKEFILE:
                raise CommandError(f"make {argument}: the Makefile has no variable {name}")
        elif argument not in MAKE_TARGETS:
            raise CommandError(f"make {argument}: there is no such target")


def _curl(arguments: Sequence[str], folder: Path) -> None:
    addresses = [word for word in arguments if "://" in word or word.startswith("localhost")]
    if not addresses:
        raise CommandError("curl without an address")
    for address in addresses:
        if urlsplit(address if "://" in address else f"http://{address}").hostname is None:
            raise CommandError(f"curl {address}: no address")


def _terraform(arguments: Sequence[str], folder: Path) -> None:
    commands = {"init", "plan", "apply", "output", "destroy", "fmt", "validate", "test"}
    if not arguments or arguments[0] not in commands:
        raise CommandError(f"terraform {' '.join(arguments[:1])}: checked are {', '.join(sorted(commands))}")
    configuration = folder if any(folder.glob("*.tf")) else _CONFIGURATION
    variables = "".join(path.read_text("utf-8") for path in configuration.glob("*.tf"))
    outputs = re.findall(r'^output "(\w+)"', variables, re.MULTILINE)
    for before, argument in itertools.pairwise(arguments):
        if before == "-var" and f'variable "{argument.partition("=")[0]}"' not in variables:
            raise CommandError(f"terraform -var {argument}: {configuration} has no such variable")
        if before == "-json" and argument not in outputs:
            raise CommandError(f"terraform output {argument}: {configuration} has no such output")


def _java(arguments: Sequence[str], folder: Path) -> None:
    (name,) = (word for word in arguments if re.fullmatch(r"[a-z]+(\.[a-z]+)+\.[A-Z]\w+", word))
    if not list((ROOT / "runners" / "flink").rglob(f"src/main/java/{name.replace('.', '/')}.java")):
        raise CommandError(f"java {name}: there is no such class")


def _source(arguments: Sequence[str], folder: Path) -> None:
    if list(arguments) != [".venv/bin/activate"]:
        raise CommandError(f". {' '.join(arguments)}: only .venv/bin/activate is sourced")


def _pip(arguments: Sequence[str], folder: Path) -> None:
    """What `pip install` names is a file that `make dist` writes: nothing of this project is on a package index."""
    command, *rest = arguments
    named = [word for word in rest if not word.startswith("-")]
    wrong = [word for word in named if not re.fullmatch(r"dist/(requirements\.txt|\*\.whl)", word)]
    if command != "install" or wrong or not named:
        raise CommandError(f"pip {' '.join(arguments)}: only files of dist/ are installed, as `pip install dist/*.whl`")


def _kubectl(arguments: Sequence[str], folder: Path) -> None:
    (overlay,) = (word for word in arguments if "/" in word)
    if arguments[:1] not in (["kustomize"], ["apply"]) or not (ROOT / overlay / "kustomization.yaml").is_file():
        raise CommandError(
            f"kubectl {' '.join(arguments)}: checked are kustomize and apply -k of a folder that is here"
        )


def _event_trigger(arguments: Sequence[str], folder: Path) -> None:
    check_pipeline(arguments)


def _any(arguments: Sequence[str], folder: Path) -> None:
    """Accept programs that every machine has; bash has checked the syntax."""


_PROGRAMS: Final[Mapping[str, Callable[[Sequence[str], Path], None]]] = {
    ".": _source,
    "curl": _curl,
    "event-trigger": _event_trigger,
    "java": _java,
    "make": check_make,
    "pip": _pip,
    "python": _python,
    "python3": _python,
    "terraform": _terraform,
    "kubectl": _kubectl,
    # In the cluster's runbook, which tests/infra/long does by the same means.
    **dict.fromkeys(("aws", "eval", "jq", "xargs"), _any),
    **dict.fromkeys(
        ("cat", "cp", "cut", "echo", "export", "git", "grep", "head", "mkdir", "pre-commit", "rm", "tail", "wc"), _any
    ),
}
