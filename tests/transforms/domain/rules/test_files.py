from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.builders import load_rules, read_rule_files
from transforms.domain.rules.model import DebugAction, KafkaAction, RuleError

GOOD = """
name: welcome
version: 1
filter: event.triggerable
actions:
  - type: debug
"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_may_hold_several_rules(tmp_path: Path) -> None:
    path = write(tmp_path, "rules.yaml", f"{GOOD}---\n{GOOD.replace('welcome', 'bye')}---\n")
    assert [rule.name for rule in load_rules(path)] == ["welcome", "bye"]


def test_a_directory_gives_the_rules_of_its_yaml_files_by_file_name(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", GOOD)
    write(tmp_path, "a.yml", GOOD.replace("welcome", "first"))
    write(tmp_path, "notes.txt", "no rule")
    assert [rule.name for rule in load_rules(tmp_path)] == ["first", "welcome"]


def test_actions_have_defaults(tmp_path: Path) -> None:
    text = GOOD + "  - type: kafka\n  - {type: kafka, name: other, topic: elsewhere}\n"
    (rule,) = load_rules(write(tmp_path, "r.yaml", text))
    assert rule.actions == (
        DebugAction(type="debug", name="debug"),
        KafkaAction(type="kafka", name="kafka", topic=None),
        KafkaAction(type="kafka", name="other", topic="elsewhere"),
    )


def test_a_rule_waits_for_the_profile_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert load_rules(write(tmp_path, "r.yaml", GOOD))[0].on_missing_profile == "wait"
    assert load_rules(write(tmp_path, "r.yaml", GOOD + "on_missing_profile: skip\n"))[0].on_missing_profile == "skip"


def test_a_filter_may_be_in_a_file_of_the_same_folder(tmp_path: Path) -> None:
    write(tmp_path, "welcome.lua", "return true -- ü")
    path = write(tmp_path, "r.yaml", GOOD.replace("filter: event.triggerable", "filter_file: welcome.lua"))
    assert load_rules(path)[0].filter == "return true -- ü"


BAD_RULES: list[tuple[str | bytes, int | None, str]] = [
    ("[", 1, "not YAML: "),
    ("name: a\n b: [", 2, "not YAML: "),
    (b"\xff\xfe\x00", None, "not YAML: .*utf-8"),
    ("just text", 1, "a rule is a mapping, this is a str"),
    ("- 1", 1, "a rule is a mapping, this is a list"),
    (GOOD.replace("welcome", "Welcome!"), 2, "name is 'Welcome!': allowed is 1 to 64 of a-z, 0-9, _ and -"),
    (GOOD.replace("welcome", "7"), 2, "name is 7: allowed is text"),
    (GOOD.replace("version: 1", "version: 0"), 3, "version is 0: allowed is 1 or more"),
    (GOOD.replace("version: 1", "version: '1'"), 3, "version is '1': allowed is a whole number"),
    (GOOD.replace("version: 1", "version: true"), 3, "version is True: allowed is a whole number"),
    (GOOD.replace("version: 1", "version: 010"), 3, "version is '010': allowed is a whole number"),
    (GOOD.replace("version: 1\n", ""), 2, "version is missing"),
    (GOOD.replace("filter: event.triggerable", "filter: true"), 4, "filter is True: allowed is text"),
    (GOOD.replace("filter: event.triggerable", "filter: ''"), 4, "filter is '': allowed is 1 character or more"),
    (GOOD.replace("event.triggerable", "x" * 65_537), 4, "filter: 65537 bytes of Lua, allowed are 65536"),
    (GOOD.replace("filter: event.triggerable\n", ""), 2, "filter is missing"),
    (GOOD.replace("event.triggerable", "event.a = "), 4, "filter does not compile: "),
    (
        GOOD.replace("event.triggerable", "event.a = 1"),
        4,
        "filter never allows anything: `=` assigns, to compare write `==`",
    ),
    (GOOD.replace("event.triggerable", "evnt.triggerable"), 4, "filter reads 'evnt': there is no such name"),
    (
        GOOD.replace("event.triggerable", "|\n  return true\n    or os.time() > 1"),
        6,
        "filter reads 'os': there is no such",
    ),
    (GOOD.replace("event.triggerable", "|\n  local x = 1\n  x = = 2\n  return x"), 6, "filter does not compile: "),
    (GOOD.replace("  - type: debug", "  []"), 5, "actions is .*: allowed is 1 item or more"),
    (GOOD.replace("debug", "email"), 6, "actions.0.type is 'email': allowed is 'debug', 'kafka', 'webhook'"),
    (GOOD + "    topic: t\n", 7, "actions.0.topic is 't': no such field"),
    (
        GOOD + "  - {type: kafka, topic: 'a b'}\n",
        7,
        "actions.1.topic is 'a b': allowed is 1 to 249 of A-Z, a-z, 0-9, ., _ and -",
    ),
    (GOOD + "  - type: debug\n", 2, "rule: action name 'debug' is used twice"),
    (GOOD + "on_missing_profile: ask\n", 7, "on_missing_profile is 'ask': allowed is 'wait', 'run' or 'skip'"),
    (GOOD + "colour: red\n", 7, "colour is 'red': no such field"),
    (GOOD + "on_missing_profil: run\n", 7, "on_missing_profil is 'run': .*did you mean 'on_missing_profile'"),
    (GOOD + "1: 2\n", 7, "key '1' is no text: quote it"),
    (GOOD + "[a]: 2\n", 7, "key .* is no text: quote it"),
    (GOOD + "name: again\n", 7, "key 'name' is given twice"),
    (GOOD + "description: &a text\ntests: *a\n", 7, "anchors and aliases are not available"),
    (GOOD + "description: !!python/object:os.system text\n", 7, "tag .*os.system' is not available"),
    (GOOD + "description: !!timestamp 2024-01-01\n", 7, "tag .*timestamp' is not available"),
    (GOOD + "description: !!int x\n", 7, "'x' is no int"),
    (GOOD + "description: !!bool x\n", 7, "'x' is no bool"),
    (GOOD + "description: !!int ''\n", 7, "'' is no int"),
    (GOOD + f"description: !!int '0x{'1' * 5000}'\n", 7, "0x1.* is a number that cannot be written"),
    (GOOD + "tests: " + "[" * 60 + "]" * 60, 7, "nested deeper than 50 levels"),
    (GOOD + "tests: " + "[" * 9000, 1, "nested deeper than 50 levels"),
    (GOOD + "cooldown: soon\n", 7, "cooldown is 'soon': a duration is a whole number and a unit"),
    (GOOD + "filter_file: x.lua\n", 7, "filter and filter_file are both given, allowed is one"),
    (GOOD.replace("filter: event.triggerable", "filter_file: x.lua"), 4, "filter_file is 'x.lua': no such file"),
    (GOOD.replace("filter: event.triggerable", "filter_file: bad.lua"), 4, "filter_file is 'bad.lua': not UTF-8"),
    (
        GOOD.replace("filter: event.triggerable", "filter_file: ../x.lua"),
        4,
        "allowed is the name of a .lua file beside",
    ),
    (GOOD.replace("filter: event.triggerable", "filter_file: /etc/passwd"), 4, "allowed is the name of a .lua file"),
    (f"{GOOD}---\n{GOOD}", 9, "name 'welcome' is taken by .*:2; names are unique"),
    ("", None, "no rule in it, allowed are"),
    (GOOD + "tests: 5\n", 7, "tests is a list of cases"),
    (GOOD + "tests:\n  - name: a\n    expect: nothing\n", 8, "tests.0.events is missing"),
    (
        GOOD + "tests:\n  - name: a\n    events: [{}]\n    expect: a lot\n",
        10,
        'tests.0.expect is .*: allowed are "nothing"',
    ),
    (GOOD + "tests:\n  - {name: a, events: [5], expect: nothing}\n", 8, "tests.0.events.0 is 5: an event is a mapping"),
    (
        GOOD + "tests:\n  - {name: a, history: [{timestamp: now}], events: [{}], expect: nothing}\n",
        8,
        "tests.0.history.0: timestamp is 'now', allowed is int",
    ),
    (GOOD + "tests:\n  - {name: a, now: noon, events: [{}], expect: nothing}\n", 8, "tests.0.now is 'noon': a time is"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD_RULES, ids=[message[:40] for _, _, message in BAD_RULES])
def test_a_bad_rule_is_refused_naming_file_line_field_and_value(
    tmp_path: Path, text: str | bytes, line: int | None, message: str
) -> None:
    write(tmp_path, "bad.lua", b"return '\xff'")
    path = write(tmp_path, "r.yaml", text)
    place = str(path) if line is None else f"{path}:{line}"
    with pytest.raises(RuleError, match=f"^{re.escape(place)}: .*{message}") as caught:
        load_rules(path)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_lua_file_is_at_that_file_s_line(tmp_path: Path) -> None:
    write(tmp_path, "w.lua", "local a = 1\n\nreturn a +\n")
    path = write(tmp_path, "r.yaml", GOOD.replace("filter: event.triggerable", "filter_file: w.lua"))
    with pytest.raises(RuleError, match=r"w\.lua:3: filter does not compile: "):
        load_rules(path)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD.replace("version: 1", "version: 0") + "colour: red\n")
    write(tmp_path, "b.yaml", "- 1\n---\n" + GOOD + "---\n[")
    result = read_rule_files(tmp_path)
    assert [(problem.file.name, problem.line) for problem in result.problems] == [
        ("a.yaml", 3),
        ("a.yaml", 7),
        ("b.yaml", 1),
        ("b.yaml", 10),
    ]
    assert [loaded.rule.name for loaded in result.rules] == ["welcome"]
    with pytest.raises(RuleError, match=r"and 3 more: see `event-trigger rules check "):
        load_rules(tmp_path)


def test_yaml_holds_no_surprises(tmp_path: Path) -> None:
    words = ["yes", "no", "on", "off", "22:30", "010", "0x1F", "1_000", "2024-01-01", "True", ".inf", "1e5", "="]
    for word in words:
        (rule,) = load_rules(write(tmp_path, "r.yaml", f"{GOOD}description: {word}\n"))
        assert rule.description == word


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"r\.yaml: 1048577 bytes, allowed are 1048576"):
        load_rules(write(tmp_path, "r.yaml", "#" * (1024 * 1024 + 1)))


CASE = """
rule: welcome
tests:
  - name: fires
    events: [{triggerable: true}]
    expect: [debug]
"""


def test_cases_are_in_the_rule_and_in_its_test_file(tmp_path: Path) -> None:
    path = write(tmp_path, "welcome.yaml", GOOD + "tests:\n  - {name: a, events: [{}], expect: nothing}\n")
    write(tmp_path, "welcome_test.yaml", CASE)
    for file_or_folder in (path, tmp_path):
        result = read_rule_files(file_or_folder)
        assert result.problems == []
        (loaded,) = result.rules
        assert [(located.case.name, located.file.name, located.line) for located in loaded.cases] == [
            ("a", "welcome.yaml", 8),
            ("fires", "welcome_test.yaml", 4),
        ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (CASE.replace("welcome", "who"), 2, "rule is 'who': no rule of this name"),
        (CASE.replace("rule: welcome\n", ""), 2, "rule is missing"),
        (CASE.replace("[debug]", "[{event: 1}]"), 6, "tests.0.expect.*action is missing"),
        (CASE.replace("name: fires", "name: fires\n    user: u"), 5, "tests.0.user is 'u': no such field"),
        ("- 1", 1, "allowed is a mapping"),
    ],
)
def test_a_bad_test_file_is_refused(tmp_path: Path, text: str, line: int, message: str) -> None:
    write(tmp_path, "welcome.yaml", GOOD)
    path = write(tmp_path, "more_test.yaml", text)
    with pytest.raises(RuleError, match=f"^{re.escape(str(path))}:{line}: .*{message}"):
        load_rules(tmp_path)


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"/nowhere: no such file or directory"):
        load_rules(tmp_path / "nowhere")


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no rule in it"):
        load_rules(tmp_path)


def test_rules_that_a_directory_has_elsewhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    write(tmp_path / "more" / "deep", "b.yaml", GOOD)
    write(tmp_path / ".git", "c.yaml", GOOD)
    write(tmp_path, "OLD.YAML", GOOD)
    write(tmp_path, "a.yaml", GOOD)
    details = [
        "OLD.YAML is not read: its ending has capital letters",
        "the folder more in it has rules, which are not read",
    ]
    assert [str(warning) for warning in read_rule_files(tmp_path).warnings] == [
        f"{tmp_path}: {detail}; allowed are *.yaml files beside each other" for detail in details
    ]
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(
        RuleError, match=r"no rule in it, allowed are .*; OLD\.YAML is not read: .*; the folder more in it"
    ):
        load_rules(tmp_path)


def test_a_directory_called_like_a_rule_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RuleError, match=r"folder\.yaml"):
        load_rules(tmp_path)


def test_names_are_unique_over_files(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD)
    with pytest.raises(RuleError, match=r"b\.yaml:2: name 'welcome' is taken by .*a\.yaml:2; names are unique"):
        load_rules(tmp_path)


SECRET = "root:x:0:0:the secret"


@pytest.mark.parametrize("of", ["a.yaml", "a_test.yaml", "a.lua"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("link", "a link out of its folder"),
        ("link to a link", "a link out of its folder"),
        ("link through a folder", "a link out of its folder"),
        ("relative link", "a link out of its folder"),
        ("/dev/zero", "a link out of its folder"),
        ("dangling", "cannot be read: No such file"),
        ("circle", "cannot be read"),
        ("pipe", "no regular file"),
        ("folder", "a folder, allowed is a file"),
        ("gigabyte", "1000000000 bytes, allowed are"),
        ("not utf-8", "not "),
    ],
)
def test_a_file_that_is_none_of_the_folder_is_a_line_with_its_name(
    of: str, kind: str, message: str, tmp_path: Path
) -> None:
    folder, outside, beside = tmp_path / "rules", tmp_path / "outside", tmp_path / "rules" / of
    folder.mkdir()
    outside.mkdir()
    (outside / "secret.yaml").write_text(SECRET)
    (folder / "good.yaml").write_text("name: good\nversion: 1\nfilter: 'true'\nactions: [{type: debug}]\n")
    if of == "a.lua":
        (folder / "a.yaml").write_text("name: a\nversion: 1\nfilter_file: a.lua\nactions: [{type: debug}]\n")
    match kind:
        case "link":
            beside.symlink_to(outside / "secret.yaml")
        case "link to a link":
            (folder / "hop").symlink_to(outside / "secret.yaml")
            beside.symlink_to(folder / "hop")
        case "link through a folder":
            (folder / "sub").symlink_to(outside)
            beside.symlink_to("sub/secret.yaml")
        case "relative link":
            beside.symlink_to("../outside/secret.yaml")
        case "/dev/zero":
            beside.symlink_to("/dev/zero")
        case "dangling":
            beside.symlink_to(outside / "nothing")
        case "circle":
            beside.symlink_to(beside)
        case "pipe":
            os.mkfifo(beside)
        case "folder":
            beside.mkdir()
        case "gigabyte":
            with beside.open("wb") as file:
                file.truncate(1_000_000_000)
        case _:
            beside.write_bytes(b"filter: \xff\xfe")
    result = read_rule_files(folder)
    (problem,) = map(str, result.problems)
    assert message in problem
    assert of in problem
    assert "secret" not in problem
    assert [loaded.rule.name for loaded in result.rules] == ["good"]


def test_links_within_the_folder_work_and_so_does_a_linked_folder(tmp_path: Path) -> None:
    real, folder = tmp_path / "real", tmp_path / "rules"
    (real / "versions").mkdir(parents=True)
    (real / "versions" / "a").write_text("name: a\nversion: 1\nfilter_file: a.lua\nactions: [{type: debug}]\n")
    (real / "a.lua").write_text("return true")
    (real / "a.yaml").symlink_to("versions/a")
    folder.symlink_to(real)
    assert [loaded.rule.name for loaded in read_rule_files(folder).rules] == ["a"]


def test_a_file_given_by_itself_may_be_no_device_and_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    for path in (tmp_path / "a.yaml", Path("/dev/zero")):
        (problem,) = read_rule_files(path).problems
        assert "no regular file" in problem.detail
