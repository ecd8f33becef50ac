"""Links, files, flags, commands, targets and names that pages mention exist."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from functools import cache

import pytest

from tests.docs.commands import check_make
from tests.docs.pages import PAGES, ROOT, Page
from tests.docs.parsers import COMMANDS, CommandError, parsed, pipeline_flags, subcommands
from transforms.adapters.telemetry.metric_names import known_counters

BY_NAME = {page.name: page for page in PAGES}
# Files of the reader and of other programs, and files that commands write.
NOT_OURS = {
    ".event-trigger/demo.yaml",
    "/etc/flink/config.yaml",
    "/opt/event-trigger/bom.cdx.json",
    "/opt/flink/conf/config.yaml",
    "dist/requirements.txt",
    "aws-msk-iam-auth-all.jar",
    "beam-overrides.jar",
    "bom.cdx.json",
    "conf/base.yaml",
    "destinations.yaml",
    "event-trigger.yaml",
    "event.json",
    "events.jsonl",
    "main.tf",
    "manifest.json",
    "name.lua",
    "native-libraries.txt",
    "target/beam-overrides.jar",
    "target/event-trigger-connectors.jar",
    "targets.json",
    "*_test.yaml",
    "*.yaml",
    "*.yml",
}
FILE = re.compile(r"[\w.*/-]+\.(?:py|md|json|yaml|yml|tf|sh|lua|java|toml|txt|svg|hcl|service|jar)\b")
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {"build", "rules"}
# Variables that the demo sets for its own child processes.
BETWEEN_PROCESSES = {"EVENT_TRIGGER_DEMO_SIGNING_KEY"}
# Of Beam and Hypothesis, and a word of Amazon's.
NOT_OUR_NAMES = {"--allow_non_restored_state", "--hypothesis-profile", "AWS_MSK_IAM"}
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
SUFFIXES = ("py", "java", "lua", "tf", "yaml", "yml", "json", "sh", "toml", "properties", "tftpl", "service")


def ids(page: Page) -> str:
    return page.name


@cache
def files() -> frozenset[str]:
    """Every file and folder of the repository, by its path and by every suffix of the path."""
    names = set()
    for folder in [*FOLDERS, "."]:
        paths = ROOT.glob("*") if folder == "." else (ROOT / folder).rglob("*")
        for path in paths:
            parts = path.relative_to(ROOT).parts
            if not {"target", ".terraform", "__pycache__"} & set(parts):
                names |= {"/".join(parts[number:]) for number in range(len(parts))}
    return frozenset(names)


@cache
def words() -> frozenset[str]:
    """Every word of the code."""
    texts = [
        (ROOT / name).read_text("utf-8", "replace")
        for name in files()
        if name.endswith(SUFFIXES) and (ROOT / name).is_file()
    ]
    identifiers = {word for text in texts for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    return frozenset(identifiers | set(known_counters([], [])) | NOT_OUR_NAMES)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Page) -> None:
    wrong = []
    for link in page.links:
        target, _, anchor = link.text.partition("#")
        if re.match(r"https?://", target):
            continue
        path = (ROOT / page.name).parent / target if target else ROOT / page.name
        name = str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else target
        if not path.exists():
            wrong.append(f"{page.name}:{link.line}: there is no {name}")
        elif anchor and (name not in BY_NAME or anchor not in BY_NAME[name].anchors):
            wrong.append(f"{page.name}:{link.line}: {name} has no heading for #{anchor}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_are_named_exist(page: Page) -> None:
    wrong = []
    for code in page.codes:
        named = FILE.findall(code.text)
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", code.text) and code.text.split("/")[0] in FOLDERS:
            named.append(code.text.rstrip("/"))
        wrong += [f"{page.name}:{code.line}: there is no {name}" for name in named if not is_there(name)]
    assert wrong == []


def is_there(name: str) -> bool:
    return name in NOT_OURS or name in files() or ("*" in name and bool(fnmatch.filter(files(), name)))


@cache
def other_flags() -> frozenset[str]:
    """Flags of the other programs here (tests, benchmarks, releases) and flags that they pass to Beam and Flink."""
    paths = [path for folder in ("infra", "runners", "tests", "pipeline") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text("utf-8") for path in paths if not path.is_relative_to(ROOT / "tests" / "docs")]
    java = [path.read_text("utf-8") for path in (ROOT / "runners").rglob("src/main/**/*.java")]
    return frozenset(flag for text in [*texts, *java] for flag in re.findall(r"[\"'](--[a-z][\w-]*)", text))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_flags_that_are_named_exist(page: Page) -> None:
    known = pipeline_flags() | other_flags() | NOT_OUR_NAMES
    wrong = [
        f"{page.name}:{code.line}: nothing has a flag {flag}"
        for code in page.codes
        for flag in FLAG.findall(code.text)
        if flag not in known
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_that_are_named_exist(page: Page) -> None:
    wrong = []
    for code in page.codes:
        try:
            check_named_command(code.text)
        except CommandError as error:
            wrong.append(f"{page.name}:{code.line}: `{code.text}`: {error}")
    assert wrong == []


def check_named_command(text: str) -> None:
    """Check target, command and subcommand; a command in the text may lack its arguments."""
    make = re.match(r"make ([a-z-]+(?: [A-Z]+=.*)?)$", text)
    if make is not None:
        check_make([make[1].split()[0], *re.findall(r"[A-Z]+=", text)])
    typed = re.match(r"(?:\S*python -m pipeline|\S*event-trigger) (?!-)", text)
    given = re.match(r"([a-z-]+)(?: ([a-z]+))?(?: |$)", text[typed.end() :] if typed else text)
    if given is None or (given[1] not in COMMANDS and typed is None):
        return
    if given[1] not in COMMANDS:
        raise CommandError(f"there is no command {given[1]!r}")
    below = subcommands(given[1])
    if below and given[2] is not None and given[2] not in below:
        raise CommandError(f"{given[1]} has {', '.join(sorted(below))}")


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_names_that_are_used_are_in_the_code(page: Page) -> None:
    """No page uses the old name of a counter, a field or an option. Names of Flink's metrics are not checked."""
    wrong = [
        f"{page.name}:{code.line}: the code knows nothing called {code.text}"
        for code in page.codes
        if re.fullmatch(r"(?!flink_)[A-Za-z]+(_[A-Za-z0-9]+)+", code.text) and code.text not in words()
    ]
    assert wrong == []


def test_every_page_of_docs_is_in_its_index() -> None:
    """A folder with a README of its own lists its pages there, and is listed by that README above."""
    unlisted = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        own = path.name == "README.md"
        folder = path.parent.parent if own else path.parent
        index = folder / "README.md"
        while not index.exists():
            index = index.parent.parent / "README.md"
        listed = {link.text.partition("#")[0] for link in BY_NAME[str(index.relative_to(ROOT))].links}
        if path != ROOT / "docs" / "README.md" and str(path.relative_to(index.parent)) not in listed:
            unlisted.append(str(path.relative_to(ROOT)))
    assert unlisted == []


def test_every_variable_of_the_environment_is_documented() -> None:
    table = set(re.findall(r"^\| `(EVENT_TRIGGER_[A-Z_]+)` \|", BY_NAME["docs/configuration.md"].text, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"EVENT_TRIGGER_[A-Z_]+", page.text)}
    used = subprocess.run(
        ["grep", "-rhoE", "EVENT_TRIGGER_[A-Z_]+", "--include=*.py", "pipeline", "runners", "transforms"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert table <= set(used.stdout.split())
    assert set(used.stdout.split()) - named <= BETWEEN_PROCESSES


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("make test", True),
        ("make tset", False),
        ("make demo RATE=3", True),
        ("python -m pipeline rules test rules/", True),
        ("python -m pipeline rulez", False),
        ("event-trigger rules test rules/", True),
        ("event-trigger rulez", False),
        ("rules publish", True),
        ("rules publisch", False),
        ("dead-letters redrive --execute", True),
        ("status", True),
    ],
)
def test_a_command_in_the_text_is_checked(text: str, good: bool) -> None:
    if good:
        check_named_command(text)
    else:
        with pytest.raises(CommandError):
            check_named_command(text)


@pytest.mark.parametrize("arguments", [["status", "--onc"], ["rules", "schema", "--hel"], ["--bootstrap_server=x:1"]])
def test_no_flag_is_taken_for_its_beginning(arguments: list[str]) -> None:
    """No parser accepts an abbreviated flag, because a later flag could make it ambiguous."""
    with pytest.raises(CommandError, match="unknown option"):
        parsed(arguments)
