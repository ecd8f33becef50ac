from __future__ import annotations

from pathlib import Path

import pytest

from transforms.domain.rules import DebugAction, KafkaAction, RuleError, load_rules

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


def test_a_filter_may_be_in_a_file_beside(tmp_path: Path) -> None:
    write(tmp_path, "welcome.lua", "return true -- ü")
    path = write(tmp_path, "r.yaml", GOOD.replace("filter: event.triggerable", "filter_file: welcome.lua"))
    assert load_rules(path)[0].filter == "return true -- ü"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        ("just text", "a rule is a mapping, this is a str"),
        ("- 1", "a rule is a mapping, this is a list"),
        (GOOD.replace("welcome", "Welcome!"), "name is 'Welcome!': String should match pattern"),
        (GOOD.replace("welcome", "7"), "name is 7: Input should be a valid string"),
        (GOOD.replace("version: 1", "version: 0"), "version is 0: Input should be greater than or equal to 1"),
        (GOOD.replace("version: 1", "version: '1'"), "version is '1': Input should be a valid integer"),
        (GOOD.replace("version: 1", "version: true"), "version is True: Input should be a valid integer"),
        (GOOD.replace("version: 1\n", ""), "version is .*: Field required"),
        (GOOD.replace("filter: event.triggerable", "filter: true"), "filter is True: Input should be a valid string"),
        (GOOD.replace("filter: event.triggerable", "filter: ''"), "filter is '': String should have at least 1"),
        (GOOD.replace("filter: event.triggerable\n", ""), "filter is .*: Field required"),
        (GOOD.replace("  - type: debug", "  []"), "actions is .*: Tuple should have at least 1 item"),
        (GOOD.replace("debug", "email"), "actions.0 is {'type': 'email'}: .*'debug', 'kafka'"),
        (GOOD + "    topic: t\n", "actions.0.debug.topic is 't': Extra inputs are not permitted"),
        (GOOD + "  - {type: kafka, topic: 'a b'}\n", "actions.1.kafka.topic is 'a b': String should match pattern"),
        (GOOD + "  - type: debug\n", "rule is .*: .*action name 'debug' is used twice"),
        (GOOD + "on_missing_profile: ask\n", "on_missing_profile is 'ask': Input should be 'wait', 'run' or 'skip'"),
        (GOOD + "colour: red\n", "colour is 'red': Extra inputs are not permitted"),
        (GOOD + "1: 2\n", "is .*: Keys should be strings"),
        (GOOD + "filter_file: x.lua\n", "filter and filter_file are both given, allowed is one"),
        (GOOD.replace("filter: event.triggerable", "filter_file: x.lua"), "filter_file is 'x.lua': no such file"),
        (GOOD.replace("filter: event.triggerable", "filter_file: bad.lua"), "filter_file is 'bad.lua': not UTF-8"),
        (f"{GOOD}---\n{GOOD}", "name 'welcome' is taken by"),
        ("", "no rule in it, allowed are"),
    ],
)
def test_a_bad_rule_is_refused_naming_file_field_and_value(tmp_path: Path, text: str | bytes, message: str) -> None:
    write(tmp_path, "bad.lua", b"return '\xff'")
    path = write(tmp_path, "r.yaml", text)
    with pytest.raises(RuleError, match=message) as caught:
        load_rules(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"rules '.*/nowhere': no such file or directory"):
        load_rules(tmp_path / "nowhere")


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no rule in it"):
        load_rules(tmp_path)


def test_a_directory_called_like_a_rule_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RuleError, match=r"folder\.yaml"):
        load_rules(tmp_path)


def test_names_are_unique_over_files(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD)
    write(tmp_path, "b.yaml", GOOD)
    with pytest.raises(RuleError, match=r"b\.yaml: name 'welcome' is taken by .*a\.yaml; names are unique"):
        load_rules(tmp_path)
