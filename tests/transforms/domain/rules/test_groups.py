"""Groups in rule files and in published sets."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.builders import grouped, read_rule_files, rule
from tests.integration.jobs import ROOT
from transforms.domain.rules.diff import rule_changes
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import RuleSet, decode_rule_set, encode_rule_set

RULE = "name: {}\nversion: 1\nfilter: 'true'\nactions: [{{type: debug}}]\ngroup: marketing\npriority: 7\n"
GROUPS = "groups:\n  marketing: {cap: {count: 1, per: day}, within: 2m}\n"


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def problems(folder: Path) -> list[str]:
    return [str(problem).removeprefix(f"{folder}/") for problem in read_rule_files(folder).problems]


def test_groups_may_be_in_any_file_of_the_folder(tmp_path: Path) -> None:
    for texts in ({"groups": GROUPS, "a": RULE.format("a")}, {"a": f"{RULE.format('a')}---\n{GROUPS}"}):
        for file in tmp_path.iterdir():
            file.unlink()
        files = read_rule_files(write(tmp_path, b=RULE.format("b"), **texts))
        assert files.problems == files.warnings == []
        first, second = files.rules
        assert first.rule.shared == second.rule.shared
        assert first.rule.shared is not None
        assert str(first.rule.shared.within) == "2m"
        assert ([peer.name for peer in first.peers], [peer.name for peer in second.peers]) == (["b"], ["a"])


def test_a_single_file_has_the_groups_of_the_file_beside_it(tmp_path: Path) -> None:
    files = read_rule_files(write(tmp_path, groups=GROUPS, a=RULE.format("a")) / "a.yaml")
    assert files.problems == []
    assert files.rules[0].rule.shared is not None


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ("", "a.yaml:5: group is 'marketing', allowed: none: there are no groups"),
        ("groups: {marketting: {}}", "a.yaml:5: group is 'marketing', allowed: marketting"),
        ("groups: {marketing: {cap: {count: 1}}}", "groups.yaml:1: groups.marketing.cap: needs either window"),
        ("groups: {marketing: {cap: {count: 0, per: day}}}", "groups.yaml:1: groups.marketing.cap.count is 0"),
        ("groups: {marketing: {within: soon}}", "groups.yaml:1: groups.marketing.within is 'soon': a duration is"),
        ("groups: {marketing: {pick: random}}", "groups.yaml:1: groups.marketing.pick is 'random'"),
        ("groups: {marketing: {withn: 2m}}", "groups.yaml:1: groups.marketing.withn is '2m': no such field"),
        ("groups: {Marketing: {}}", "groups.yaml:1: groups.Marketing.[key] is 'Marketing'"),
        ("groups: {}", "groups.yaml:1: groups is {}"),
        ("groups: [marketing]", "groups.yaml:1: groups is ['marketing']"),
        ("groups: {marketing: {}}\nname: x", "groups.yaml:2: name is 'x': no such field"),
        ("groups: {marketing: {unless: user.a ==}}", "groups.yaml:1: groups.marketing.unless: does not compile"),
        ("groups: {marketing: {unless: event.a}}", "groups.yaml:1: groups.marketing.unless: reads 'event', allowed:"),
        ("groups: {marketing: {unless: usr.a}}", "groups.yaml:1: groups.marketing.unless: reads 'usr', allowed:"),
        ("groups: {marketing: {}}\n---\ngroups: {marketing: {}}", "groups.yaml:3: group 'marketing' is taken by"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(groups: str, problem: str, tmp_path: Path) -> None:
    found = problems(write(tmp_path, groups=groups, a=RULE.format("a")))
    assert any(each.startswith(problem) for each in found), found


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("priority: 101", "priority is 101"),
        ("priority: -1", "priority is -1"),
        ("priority: 1.5", "priority is 1.5"),
        ("expires: 0s", "expires is '0s': a duration is"),
        ("group: [marketing]", "group is ['marketing']"),
    ],
)
def test_a_wrong_field_of_a_rule_is_said(fields: str, problem: str, tmp_path: Path) -> None:
    name = fields.partition(":")[0]
    kept = "\n".join(line for line in RULE.format("a").splitlines() if not line.startswith(name))
    (found, *_) = problems(write(tmp_path, groups=GROUPS, a=f"{kept}\n{fields}\n"))
    assert problem in found


def test_a_priority_without_a_group_is_refused(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, a=RULE.format("a").replace("group: marketing\n", "")))
    assert "priority is among the rules of a group: the rule has no group" in found


def test_a_group_that_no_rule_names_is_a_warning(tmp_path: Path) -> None:
    files = read_rule_files(write(tmp_path, groups=f"{GROUPS}  news: {{}}\n", a=RULE.format("a")))
    assert [problem.detail for problem in files.warnings] == [
        "group 'news' has no rule: a set has the groups that its rules name"
    ]


def test_a_published_set_has_its_groups_and_one_without_is_written_as_before() -> None:
    rules = grouped({"marketing": {"cap": {"count": 1, "per": "day"}}}, rule("a", group="marketing"), rule("b"))
    value = encode_rule_set(RuleSet(3, rules))
    assert orjson.loads(value)["rules"]["groups"] == {"marketing": {"cap": {"count": 1, "per": "day"}}}
    decoded = decode_rule_set(value)
    assert decoded == RuleSet(3, rules)
    assert decoded.rules[0].shared == rules[0].shared
    assert "groups" not in orjson.loads(encode_rule_set(RuleSet(3, (rule("b"),))))["rules"]
    assert RuleSet(3, rules).digest != RuleSet(3, grouped({"marketing": {}}, *rules)).digest


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ({}, "rule set: rule 'a': group is 'marketing', allowed: none: there are no groups"),
        ({"news": {}}, "rule set: rule 'a': group is 'marketing', allowed: news"),
        ({"marketing": {"within": 5}}, "rule set: groups.marketing.within is 5"),
        ({"marketing": {"cap": {}}}, "rule set: groups.marketing.cap.count is missing"),
        (None, "rule set: groups is None"),
    ],
)
def test_a_record_with_wrong_groups_is_refused(groups: object, problem: str) -> None:
    document = orjson.loads(encode_rule_set(RuleSet(3, grouped({"marketing": {}}, rule("a", group="marketing")))))
    document["rules"]["groups"] = groups
    with pytest.raises(RuleError) as refused:
        decode_rule_set(orjson.dumps(document))
    assert str(refused.value).startswith(problem)


def test_another_cap_of_a_group_changes_its_rules_and_needs_no_version() -> None:
    live = grouped({"marketing": {}}, rule("a", group="marketing"), rule("b"))
    changes = rule_changes(live, grouped({"marketing": {"within": "1m"}}, *live))
    assert (changes.changed, changes.problems) == (("a",), ())
    moved = grouped({"news": {}}, rule("a", group="news"), rule("b"))
    assert rule_changes(live, moved).problems == ("rule 'a': group differ from the live version 1: raise the version",)


def test_the_example_has_a_group() -> None:
    files = read_rule_files(ROOT / "examples" / "groups")
    assert files.problems == files.warnings == []
    assert {loaded.rule.group for loaded in files.rules} == {"marketing"}
