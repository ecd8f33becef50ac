"""``event-trigger rules`` as somebody at a shell sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from tests.integration.jobs import ROOT

GOOD = """\
name: NAME
version: 1
filter: event.event_name == "page_view"
actions:
  - type: debug
tests:
  - name: fires
    events: [{event_name: page_view}]
    expect: [debug]
"""


def write(folder: Path, name: str, text: str = GOOD) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("NAME", name))
    return path


def test_a_new_rule_passes_its_own_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "rules"
    assert main(["rules", "new", str(folder)]) == 0
    assert main(["rules", "check", str(folder)]) == 0
    assert main(["rules", "test", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "ok  us_page_view  version 1  2 cases\n" in shown.out
    assert "1 rule, 2 cases, 0 failed in " in shown.out
    assert shown.err == ""
    assert main(["rules", "new", str(folder)]) == 2
    assert "us_page_view.yaml: is there already" in capsys.readouterr().err


def test_every_problem_is_shown_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "good")
    write(tmp_path, "bad", GOOD.replace("version: 1", "version: 0").replace("debug", "email"))
    for command in ("check", "test"):
        assert main(["rules", command, str(tmp_path)]) == 1
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert lines[0].startswith(f"error: {tmp_path}/bad.yaml:2: version is 0: allowed is 1 or more")
        assert lines[1].startswith(f"error: {tmp_path}/bad.yaml:5: actions.0.type is 'email': allowed is ")
        assert lines[2:] == ["2 problems"]
        assert shown.out == ""


def test_a_failed_case_is_shown_with_its_place_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "good")
    path = write(tmp_path, "wrong", GOOD.replace("[debug]", "nothing"))
    write(tmp_path, "untested", GOOD.partition("tests:")[0])
    report = tmp_path / "report.xml"
    assert main(["rules", "test", str(tmp_path), f"--junit-xml={report}"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:-1] == [
        "ok      good: fires",
        "FAILED  wrong: fires",
        f"        {path}:7",
        "        expected  nothing",
        "        but fired debug for event 1",
        "        event 1: fires",
        '          true   event.event_name == "page_view"   (event.event_name is "page_view")',
    ]
    assert shown.out.splitlines()[-1].startswith("3 rules, 2 cases, 1 failed in ")
    assert shown.err == (
        f"warning: {tmp_path}/untested.yaml:1: untested has no test: a case under tests shows that it fires where it "
        "should\n"
    )
    root = ElementTree.fromstring(report.read_bytes())  # noqa: S314 - our own file
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in root] == [
        ("good", "1", "0"),
        ("wrong", "1", "1"),
    ]
    assert root.find("testsuite[@name='wrong']/testcase/failure").text == (  # type: ignore[union-attr]
        "expected  nothing\nbut fired debug for event 1"
    )


def test_results_and_problems_are_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(command: str, code: int) -> dict[str, Any]:
        assert main(["rules", command, str(tmp_path), "--json"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    path = write(tmp_path, "wrong", GOOD.replace("[debug]", "nothing"))
    write(tmp_path, "untested", GOOD.partition("tests:")[0])
    detail = "untested has no test: a case under tests shows that it fires where it should"
    no_test = {"file": str(tmp_path / "untested.yaml"), "line": 1, "problem": detail}
    assert printed("check", 0) == {
        "rules": [
            {"name": "untested", "version": 1, "file": str(tmp_path / "untested.yaml"), "line": 1, "cases": 0},
            {"name": "wrong", "version": 1, "file": str(path), "line": 1, "cases": 1},
        ],
        "problems": [],
        "warnings": [no_test],
    }
    differences = ["expected  nothing", "but fired debug for event 1"]
    of_wrong = {"rule": "wrong", "case": "fires", "passed": False, "file": str(path), "line": 7}
    tested = {"cases": [of_wrong | {"differences": differences}], "failed": 1, "problems": [], "warnings": [no_test]}
    assert printed("test", 1) == tested

    path.write_text("name: wrong\n")
    for command in ("check", "test"):
        problems = printed(command, 1)["problems"]
        assert {problem["file"] for problem in problems} == {str(path)}
        assert any("version" in problem["problem"] for problem in problems)


def test_a_report_may_hold_any_text(tmp_path: Path) -> None:
    write(tmp_path, "odd", GOOD.replace("name: fires", 'name: "<\\0\\e&ü😀"').replace("[debug]", "nothing"))
    report = tmp_path / "report.xml"
    assert main(["rules", "test", str(tmp_path), f"--junit-xml={report}"]) == 1
    (case,) = ElementTree.fromstring(report.read_bytes()).iter("testcase")  # noqa: S314 - our own file
    assert case.get("name") == "<??&ü😀"


def test_a_dry_call_that_fails_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "deep", GOOD.replace('event.event_name == "page_view"', "event.parameters.a.b == 1"))
    assert main(["rules", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().err == (
        f"warning: deep on an event without further fields: {path}:3: attempt to index field 'a' (a nil value)\n"
    )


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/rule.schema.json").read_text("utf-8")


def test_ten_rules_are_tested_within_seconds_and_without_beam(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, f"rule_{number}")
    code = (
        "import sys; from pipeline.cli.main import main; status = main(sys.argv[1:]);"
        "sys.exit('apache_beam' in sys.modules or status)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "rules", "test", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 rules, 10 cases, 0 failed in " in done.stdout
    # Half a second on an idle machine; the bound is for machines that are not.
    assert time.monotonic() - started < 30


def test_an_event_is_explained_for_every_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    write(rules, "both", GOOD.replace('event.event_name == "page_view"', 'event.event_name == "a" and user.vip'))
    write(rules, "other", GOOD.replace('event.event_name == "page_view"', "event.timestamp == 1704067200000"))
    event, given = tmp_path / "event.json", tmp_path / "given.yaml"
    event.write_text('{"event_id": "e", "user_id": "u", "event_name": "a", "timestamp": 1704067200000}')
    given.write_text("profile: {vip: true}\n")
    assert main(["rules", "explain", str(rules), f"--event={event}", f"--given={given}"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "both version 1: fires",
        '    true   event.event_name == "a" and user.vip',
        '      true   event.event_name == "a"   (event.event_name is "a")',
        "      true   user.vip",
        "other version 1: fires",
        "    true   event.timestamp == 1704067200000   (event.timestamp is 1704067200000)",
    ]


def test_earlier_events_are_of_the_same_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = "group: mail\npriority: 1\n"
    write(tmp_path, "rule", GOOD.replace('event.event_name == "page_view"', '"true"') + group)
    (tmp_path / "groups.yaml").write_text("groups: {mail: {cap: {count: 1, per: day}}}")
    event, given = tmp_path / "event.json", tmp_path / "given.txt"
    event.write_text('{"event_id": "e", "user_id": "u", "event_name": "a", "timestamp": 1704067200000}')
    given.write_text("events: [{event_name: a}]")
    assert main(["rules", "explain", str(tmp_path), f"--event={event}", f"--given={given}"]) == 0
    assert "does not fire" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("event", "given", "message"),
    [
        ("[1]", "", "event.json: allowed is one mapping, this is a list"),
        ("{", "", "event.json:1: neither JSON nor YAML: "),
        ("{}", "profile: 5", "error: profile is 5: allowed is a mapping\n"),
        ("{}", "colour: red", "colour"),
    ],
)
def test_what_cannot_be_explained_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], event: str, given: str, message: str
) -> None:
    write(tmp_path, "rule")
    (tmp_path / "event.json").write_text(event)
    (tmp_path / "given.txt").write_text(given or "{}")
    files = [f"--event={tmp_path}/event.json", f"--given={tmp_path}/given.txt"]
    assert main(["rules", "explain", str(tmp_path), *files]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_fields_are_checked_against_a_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    path = write(rules, "rule", GOOD.replace('"page_view"', '"page_view" and user.contry == "US"'))
    schema = tmp_path / "schema.json"
    schema.write_text('{"properties": {"user": {"properties": {"country": {}}, "additionalProperties": false}}}')
    for command in ("check", "test"):
        assert main(["rules", command, str(rules), f"--schema={schema}"]) == 1
        assert capsys.readouterr().err == (
            f"error: {path}:3: filter reads user.contry: user has no such field; did you mean 'country'?\n1 problem\n"
        )
    schema.write_text('{"properties": {"user": []}}')
    assert main(["rules", "check", str(rules), f"--schema={schema}"]) == 2
    assert capsys.readouterr().err == f"error: {schema}: properties.user is [], allowed is a schema\n"


TTL_RULE = """\
name: seen
version: 1
filter: "#history > 0"
actions: [{type: debug}]
tests:
  - name: the second event within an hour fires
    events: [{event_name: a}, {event_name: a, after: 1h}]
    expect: [{action: debug, event: 2}]
"""
SEQUENCE = """\
name: cart
version: 1
filter: event.event_name == "a"
sequence: {not_followed_by: event.event_name == "b", within: 10m}
actions: [{type: debug}]
tests:
  - name: what comes late ends the sequence
    events: [{event_name: a}, {event_name: b, after: 11m, timestamp: 1704110700000}]
    wait: 1h
    expect: nothing
"""


@pytest.mark.parametrize(
    ("rule", "option", "name"),
    [(TTL_RULE, "state_ttl_seconds", "7200"), (SEQUENCE, "allowed_lateness_seconds", "300")],
)
def test_options_of_the_job_count_in_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, option: str, name: str
) -> None:
    path = write(tmp_path, "r", rule)
    assert main(["rules", "test", str(path)]) == 1
    assert main(["rules", "test", str(path), f"--{option}={name}"]) == 0
    (tmp_path / "event-trigger.yaml").write_text(f"{option}: {name}\n")
    assert main(["rules", "test", str(path), f"--config={tmp_path}/event-trigger.yaml"]) == 0
    assert main(["rules", "test", str(path), f"--{option}=-5"]) == 2
    assert f"--{option} is -5, allowed: " in capsys.readouterr().err
