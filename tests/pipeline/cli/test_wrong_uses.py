"""What is typed wrongly is answered in one line that helps, with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.commands import COMMANDS
from pipeline.cli.main import main
from tests.docs.pages import ROOT

SERVERS = "--bootstrap_servers=localhost:1"
WRONG = [
    ("doctorr", "unknown command 'doctorr': did you mean doctor?"),
    ("help", "unknown command 'help': allowed: run, resume, deploy, demo, rules, status, why, inspect,"),
    ("rules", "rules lacks its command, allowed: new, check, test, explain"),
    ("rules publsh rules/", "unknown command 'rules publsh': did you mean publish?"),
    ("--rulez=rules/", "unknown option '--rulez': did you mean --rules?"),
    ("--max_bundle_size=5", "unknown option '--max_bundle_size': did you mean --bundle_size?"),
    ("run --runner=FlinkRuner", "--runner is 'FlinkRuner', allowed: DirectRunner, FlinkRunner"),
    ("status --flinkmaster=f:8081", "unknown option '--flinkmaster': did you mean --flink_master?"),
    ("--flink_master=f:8081 status", "'status' comes first: event-trigger status --flink_master=f:8081"),
    ("why --usr=u1", "unknown option '--usr': did you mean --user?"),
    ("why --decisions_file=f", "--user is missing: give user_id"),
    ("why --user", "--user lacks its value: give user_id"),
    ("inspect user", "USER_ID is missing: give user_id"),
    ("savepoint stop", "'stop' is one argument too many: did you mean --stop?"),
    ("inspect user u1 u2 --control_topic=c", "'u2' is one argument too many; event-trigger inspect user --help"),
    (f"dead-letters list --reason=not_jsn {SERVERS}", "--reason is 'not_jsn', did you mean not_json?"),
    ("dead-letters list", "--bootstrap_servers is missing: give HOST:PORT of a broker"),
    (f"dead-letters list --limit=many {SERVERS}", "--limit is 'many', allowed: a whole number"),
    ("savepoint --flink_master=f:8081 --timeout_seconds=soon", "--timeout_seconds is 'soon', allowed: a number"),
    ("savepoint --stop=perhaps", "--stop is 'perhaps', allowed: true or false"),
    ("capacity --log_format=xml", "--log_format is 'xml', allowed: text, json"),
    ("capacity --events_per_second=1 --users=1 --tier=smal", "--tier is 'smal', allowed: small, medium, large"),
    ("why --user=u1 --decisions_file=/nowhere", "--decisions_file is '/nowhere': No such file or directory"),
    ("rules explain /nowhere --event=/nowhere", "/nowhere"),
    ("deploy", "--terraform is missing: give applied configuration"),
    ("dead-letters list --bootstrap_servers=nohost", "--bootstrap_servers is 'nohost', allowed: HOST:PORT"),
    (f"dead-letters redrive --dead_letters_key=x {SERVERS}", "--dead_letters_key is no reference, allowed: env:NAME, "
     "file:/ABSOLUTE/PATH or aws-secret:NAME#JSON-KEY"),
    ("demo --seconds=0", "--seconds is 0.0, allowed: a number above 0"),
    ("demo --seconds=nan", "--seconds is nan, allowed: a number above 0"),
    ("demo rules/", "'rules/' is one argument too many: did you mean --rules?"),
    ("rules test examples/rules --history_size=0", "--history_size is 0, allowed: 1 to 10000 events"),
    (f"rules publish examples/rules --rules_topic=t --history_size=-1 {SERVERS}", "--history_size is -1, allowed: 1"),
    ("run --history_fields=", "--history_fields is empty"),
    ("run --config=docs", "docs: is no file"),
    ("run --profile=x", "--profile is 'x', but there is no configuration file"),
    ("rules foo bar", "unknown command 'rules foo': allowed: new, check"),
    ("why --user= --decisions_file=f", "--user is empty"),
    ("inspect user u1 --control_topic=", "--control_topic is empty"),
    ("destinations list", "--control_topic is missing: give the pipeline's control topic"),
    ("destinations enable", "NAME is missing: give name of the destination"),
    ("--verison", "unknown option '--verison': did you mean --version?"),
    ("--install-completion --shell=tcl", "--shell is 'tcl', allowed: "),
    ("config schema confg", "schema is 'confg', allowed: action"),
    ("doctor --runner=Flink", "--runner is 'Flink', allowed: DirectRunner, FlinkRunner"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "answer"), WRONG, ids=[typed for typed, _ in WRONG])
def test_wrong_use_is_answered_in_one_line_that_helps(
    typed: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(typed.split())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {answer}" if answer != "/nowhere" else "error: ")
    assert answer in err
    assert code == (1 if "explain" in typed else 2)
    if "explain" not in typed:
        assert err.count("\n") == 1


def test_an_option_that_is_repeated_counts_as_it_was_given_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--events_per_second=1000", "--users=1", "--users=2000", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["capacity", "--events_per_second", "1000", "--users", "2000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize("command", [["doctorr"], ["why", "--user=u", "--decisions_file=/password=hush"]])
def test_every_error_is_json_if_asked_and_hides_secrets(command: list[str]) -> None:
    typed = [sys.executable, "-m", "pipeline", *command, "--log_format=json"]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, json.loads(line)["level"]) == (2, "error")
    assert "hush" not in line


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = f"{sys.executable} -m pipeline rules schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from pipeline.cli.main import main; main(['--help']);"
        "sys.exit(any(name.startswith(('pipeline.launch', 'pipeline.job', 'apache_beam', 'pydantic')) for name in"
        " sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name}  ".encode() in done.stdout for name in COMMANDS if len(name) == len("destinations"))


def test_completion_is_installed_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert main(["--install-completion", "--shell=bash"]) == 0
    (script,) = (path for path in tmp_path.rglob("event-trigger") if path.is_file())
    text = script.read_text()
    assert "dead-letters" in text
    assert "--bootstrap_servers" in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
