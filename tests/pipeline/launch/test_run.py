"""The program as a user starts it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.embedded.stream import bundled_records
from pipeline.embedded.user_api import _answer, profile_of
from pipeline.launch.summary import Summary
from tests.builders import load_rules
from tests.oracle import Oracle, OracleRule, SeenAction, action_differences, dead_letter_differences
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow  # each test starts the launcher, and Beam with it

# pipeline/embedded/rules, written in Python.
RULES = [
    OracleRule(
        "checkout_after_browsing",
        lambda event, user, visit, history: (
            event["event_name"] == "checkout" and sum(past["event_name"] == "page_view" for past in history) >= 5
        ),
    ),
    OracleRule(
        "us_page_view",
        lambda event, user, visit, history: (
            event["triggerable"] and event["event_name"] == "page_view" and user.get("country") == "US"
        ),
    ),
    OracleRule(
        "welcome_first_visit",
        lambda event, user, visit, history: event["is_first_in_visit"] and visit["is_first_visit"],
    ),
]


class EmbeddedApi(dict[str, Any]):
    """What the embedded user API knows, as the oracle asks for it."""

    def get(self, user_id: str, default: Any = None) -> Any:
        if profile_of(user_id) is None:
            return default
        return {what: _answer(user_id, what) for what in ("profile", "visit", "history")}


@pytest.fixture(scope="module")
def embedded_oracle() -> Oracle:
    """The oracle after the bundled stream."""
    oracle = Oracle(RULES, EmbeddedApi())
    for key, value in bundled_records():
        oracle.feed(key, value)
    return oracle


def run_in(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python -m pipeline`` with options, started in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def embedded_run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """``python -m pipeline --verbose``, nothing else."""
    return run_in(tmp_path_factory.mktemp("verbose"), "--verbose")


def good_records() -> list[bytes]:
    return [value for number, (_, value) in enumerate(bundled_records()) if number % 100 != 99]


def debug_events(output: str) -> list[SeenAction]:
    mark = "DEBUG EVENT "
    return [SeenAction.of_debug(line[len(mark) :].encode()) for line in output.splitlines() if line.startswith(mark)]


def test_it_ends_well_and_says_nothing_but_actions_summary_and_dead_letters(
    embedded_run: subprocess.CompletedProcess[str], embedded_oracle: Oracle
) -> None:
    assert embedded_run.returncode == 0
    before, mark, _ = embedded_run.stdout.partition("\nSummary\n")
    assert mark
    shown = before.splitlines()
    assert all(line.startswith(("DEBUG EVENT {", "FIRED ")) for line in shown)
    fired = [tuple(line.split()[1:]) for line in shown if line.startswith("FIRED ")]
    names = {event["event_id"]: event["event_name"] for event in map(json.loads, good_records())}
    assert sorted(fired) == sorted(
        (action.rule, action.user_id, names[action.event_id], "debug") for action in embedded_oracle.actions
    )
    assert all(line.startswith("DEAD LETTER ") for line in embedded_run.stderr.splitlines()), embedded_run.stderr
    assert len(embedded_run.stderr.splitlines()) == len(embedded_oracle.dead_letters)


@pytest.mark.slow
def test_rules_in_processes_of_their_own_do_the_same_and_leave_none_behind(embedded_oracle: Oracle) -> None:
    seen: set[int] = set()
    command = [sys.executable, "-m", "pipeline", "--verbose", "--rules_isolation=process"]
    with tempfile.TemporaryFile("w+") as output, subprocess.Popen(command, cwd=ROOT, stdout=output) as run:
        eventually(lambda: seen.update(sandboxes_of(run.pid)) or run.poll() is not None, "the run ends", 120, 0.01)
        output.seek(0)
        actions = debug_events(output.read())
    assert run.returncode == 0
    assert action_differences(embedded_oracle, actions) == []
    assert seen
    eventually(lambda: not any(is_sandbox(pid) for pid in seen), "the sandboxes' processes are gone", 10)


def sandboxes_of(pid: int) -> list[int]:
    """Its child processes that are sandboxes."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lists = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for child in " ".join(lists).split() if is_sandbox(int(child))]
    return []


def is_sandbox(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"sandbox_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_it_does_what_the_oracle_says(embedded_run: subprocess.CompletedProcess[str], embedded_oracle: Oracle) -> None:
    seen = debug_events(embedded_run.stdout)
    assert len(seen) > 50
    assert action_differences(embedded_oracle, seen) == []
    assert {action.rule for action in embedded_oracle.actions} == {rule.name for rule in RULES}


def test_the_summary_counts_what_the_oracle_counts(
    embedded_run: subprocess.CompletedProcess[str], embedded_oracle: Oracle
) -> None:
    lines = embedded_run.stdout.partition("\nSummary\n")[2].partition("\n\n")[0].splitlines()
    shown = {line[:-10].strip(): int(line[-10:].replace(",", "")) for line in lines if line.strip("- ")}
    assert shown["events"] == len(list(bundled_records()))
    assert shown["events handled"] == embedded_oracle.handled
    assert shown["duplicates"] == len(embedded_oracle.duplicates)
    assert shown["users"] == len(embedded_oracle.users)
    assert shown["actions"] == shown["rule matches"] == len(embedded_oracle.actions)
    assert shown["dead letters"] == len(embedded_oracle.dead_letters)
    assert shown["rule errors"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("user_shards", ["0", "1"])
def test_the_number_of_shards_does_not_change_what_it_does(
    user_shards: str,
    embedded_oracle: Oracle,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [f"--user_shards={user_shards}", "--parallelism=1", "--verbose"]
    assert main(options) == 0
    assert action_differences(embedded_oracle, debug_events(capfd.readouterr().out)) == []


@pytest.fixture(scope="module")
def recorded_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Standard output and what is in the files of a run that writes all of them; they had something in them."""
    paths = {name: tmp_path_factory.mktemp("files") / name for name in ("actions", "decisions", "dead_letters")}
    paths["actions"].write_text("of an earlier run\n")
    options = [*(f"--{name}_file={path}" for name, path in paths.items()), "--decision_sample=1"]
    done = run_in(tmp_path_factory.mktemp("recorded"), *options)
    assert done.returncode == 0
    assert all(line.startswith("DEAD LETTER ") for line in done.stderr.splitlines()), done.stderr
    lines = {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in paths.items()}
    assert len(lines["dead_letters"]) == len(done.stderr.splitlines())
    return done.stdout.splitlines(), lines


def test_the_actions_file_has_what_the_oracle_says_and_standard_output_a_line_for_each(
    recorded_run: Any, embedded_oracle: Oracle
) -> None:
    shown, files = recorded_run
    actions = files["actions"]
    seen = [SeenAction(action["body"], action["rule"], action["version"], action["action_id"]) for action in actions]
    assert action_differences(embedded_oracle, seen) == []
    fields = {"time", "action_id", "rule", "version", "action", "type", "user_id", "body"}
    assert all(set(action) == fields and (action["action"], action["type"]) == ("debug", "debug") for action in actions)
    assert all(action["user_id"] == action["body"]["event"]["user_id"] for action in actions)
    printed = [line for line in shown if line.startswith("FIRED ")]
    assert [tuple(line.split()[1:3]) for line in printed] == [(one["rule"], one["user_id"]) for one in actions]
    assert not any("DEBUG EVENT" in line for line in shown)
    assert sum(map(len, shown)) < 50_000


def test_every_rule_and_event_has_the_decision_that_the_oracle_comes_to(
    recorded_run: Any, embedded_oracle: Oracle
) -> None:
    decisions = recorded_run[1]["decisions"]
    found = {
        (decision["user_id"], decision["event_id"], decision["rule"]): decision["decision"] for decision in decisions
    }
    assert len(found) == len(decisions) == embedded_oracle.handled * len(RULES)
    fired = {key for key, decision in found.items() if decision == "fired"}
    assert fired == {(action.user_id, action.event_id, action.rule) for action in embedded_oracle.actions}
    assert set(found.values()) == {"fired", "not_allowed"}


def test_the_dead_letters_file_has_the_records_that_the_oracle_refuses(
    recorded_run: Any, embedded_oracle: Oracle
) -> None:
    assert dead_letter_differences(embedded_oracle, recorded_run[1]["dead_letters"]) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere" / "actions.jsonl"
    assert main([f"--actions_file={path}"]) == 2
    assert capsys.readouterr().err == f"error: --actions_file is {str(path)!r}: No such file or directory\n"


def bad_rules(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Command lines that are refused, and their messages."""
    webhook = folder / "webhook.yaml"
    webhook.write_text("{name: to_crm, version: 1, filter: 'true', actions: [{type: webhook, destination: crm}]}")
    destinations = folder / "destinations.yaml"
    destinations.write_text("destinations: [{name: shop, url: 'https://a.example', secrets: ['env:A']}]")
    broken = folder / "broken.yaml"
    broken.write_text("{name: broken, version: 1, filter: 'event.', actions: [{type: debug}]}")
    wrong = folder / "wrong.yaml"
    wrong.write_text("{name: wrong, version: one, filter: 'true', actions: [{type: debug}]}")
    return {
        "unknown option": (["--user_shard=1"], "did you mean --user_shards?"),
        "bad value": (["--history_size=0"], "--history_size is 0, allowed: 1 to 10000 events"),
        "rules that are not there": ([f"--rules={folder}/nowhere"], "nowhere: no such file or directory"),
        "no rule": ([f"--rules={broken}"], "broken.yaml:1: filter does not compile: "),
        "wrong rule": ([f"--rules={wrong}"], "wrong.yaml:1: version is 'one': "),
        "a destination that the file does not have": (
            [f"--rules={webhook}", f"--destinations={destinations}"],
            "rule 'to_crm': destination is 'crm', allowed: shop",
        ),
        "a key that is not there": (
            ["--dead_letters_key=env:NOT_SET"],
            "--dead_letters_key cannot be read: env:NOT_SET: no such",
        ),
        "a key of another form": ([f"--dead_letters_key=file:{broken}"], "--dead_letters_key cannot be read: file:"),
        "a token that is not there": (
            ["--user_api_url=http://127.0.0.1:1", "--user_api_token=env:NOT_SET"],
            "--user_api_token cannot be read: token env:NOT_SET: no such environment variable",
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "unknown option",
        "bad value",
        "rules that are not there",
        "no rule",
        "wrong rule",
        "a destination that the file does not have",
        "a key that is not there",
        "a key of another form",
        "a token that is not there",
    ],
)
def test_an_impossible_launch_is_refused_with_exit_code_2_and_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = bad_rules(tmp_path)[name]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_a_refusal_comes_without_traceback_and_before_beam_is_imported() -> None:
    code = "import sys; from pipeline.cli.main import main; code = main(['--x'])"
    code += "; print('apache_beam' in sys.modules); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr == "error: unknown option '--x': event-trigger run --help lists what there is\n"


RULE_WITH_ALL_ACTIONS = """\
name: us_page_view
version: 1
filter: event.triggerable and event.event_name == "page_view" and user.country == "US"
cap: {count: 3, per: day}
actions:
  - type: debug
  - type: kafka
    topic: us-page-views
  - {type: kafka, name: again}
  - type: webhook
    destination: crm
    body: {who: "${event.user_id}"}
"""


def test_an_embedded_run_takes_kafka_actions_and_webhooks_and_counts_them_by_rule(tmp_path: Path) -> None:
    (tmp_path / "rule.yaml").write_text(RULE_WITH_ALL_ACTIONS)
    # As a terminal that cannot show every character.
    done = run_in(tmp_path, "--rules=rule.yaml", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    decisions = list(map(json.loads, (tmp_path / ".event-trigger" / "decisions.jsonl").read_text().splitlines()))
    counted = Counter(decision["decision"] for decision in decisions)
    assert counted["fired"] == 4 * 33
    assert (counted["delivered"], counted["capped"]) == (33, 10)
    lines = done.stdout.splitlines()
    targets = Counter(line.split(maxsplit=4)[4] for line in lines if line.startswith("FIRED us_page_view "))
    assert targets == dict.fromkeys(("debug", "kafka us-page-views", "kafka event-actions", "webhook crm"), 33)
    by_target = lines[lines.index("actions by target") + 1 :][:4]
    assert [line.rsplit(maxsplit=1) for line in by_target] == [
        ["debug", "33"], ["kafka event-actions", "33"], ["kafka us-page-views", "33"], ["webhook crm", "33"]
    ]  # fmt: skip
    at = next(number for number, line in enumerate(lines) if line.startswith("rule  "))
    assert lines[at].split() == ["rule", "evaluated", "allowed", "capped", "cooled", "down", "fired"]
    assert lines[at + 1].split() == ["us_page_view", "2,376", "43", "10", "0", "33"]
    assert [line.rsplit(maxsplit=1)[0].strip() for line in lines[lines.index("dead letters by reason") + 1 :][:5]] == [
        "not_json", "missing_field", "wrong_type", "key_mismatch", "too_large"
    ]  # fmt: skip
    actions = list(map(json.loads, (tmp_path / ".event-trigger" / "actions.jsonl").read_text().splitlines()))
    assert Counter(action["type"] for action in actions) == {"debug": 33, "kafka": 66, "webhook": 33}
    assert "why                   event-trigger why" in done.stdout


def test_a_run_whose_output_is_no_longer_read_ends_well(tmp_path: Path) -> None:
    command = f"{sys.executable} -m pipeline | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FIRED ")
    assert "Traceback" not in done.stderr


def test_without_a_folder_to_write_to_a_run_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".event-trigger").write_text("a file")
    done = run_in(tmp_path, "--actions_file=actions.jsonl")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: .event-trigger: File exists; nothing is written, ")
    assert done.stdout.splitlines()[-1].split() == ["actions", "as", "JSON", "actions.jsonl"]
    assert len((tmp_path / "actions.jsonl").read_text().splitlines()) == 300


def test_an_event_that_got_lost_is_noticed() -> None:
    counts = {"events": 10, "events_handled": 6, "duplicates": 1, "events_rejected": 2, "dead_letters": 5}
    assert Summary(counts).unaccounted() == 1
    assert Summary(counts | {"events_handled": 7}).unaccounted() == 0
    assert Summary({}).unaccounted() == 0


def test_the_summary_is_a_table_of_equally_long_lines() -> None:
    lines = Summary({"events": 123_456, "actions": 3}).table().strip().splitlines()[1:]
    assert len({len(line) for line in lines}) == 1
    assert any(line.startswith("events ") and line.endswith("  123,456") for line in lines)


def test_the_bundled_rules_are_the_ones_the_oracle_knows() -> None:
    rules = load_rules(ROOT / "pipeline/embedded/rules")
    assert [rule.name for rule in rules] == [rule.name for rule in RULES]


def test_the_launcher_reports_as_json_with_log_format_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "--log_format=json", f"--rules={tmp_path}/none.yaml", "--job_name=j"]
    done = subprocess.run(
        [*command, "--bootstrap_servers=127.0.0.1:1"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["job"], record["logger"]) == ("error", "j", "event_trigger.launcher")
    assert "none.yaml" in record["event"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_secret_in_an_option_is_not_printed(log_format: str) -> None:
    command = [sys.executable, "-m", "pipeline", f"--log_format={log_format}", "--bootstrap_servers=127.0.0.1:1"]
    done = subprocess.run(
        [*command, "--rules=sasl.password=s3cr3t"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "[hidden]" in done.stderr
    assert "s3cr3t" not in done.stderr


@pytest.mark.parametrize(
    ("file", "variables", "place"),
    [
        ("bootstrap_servers: 127.0.0.1:1\nrules: rules/\n", {}, "event-trigger.yaml:1"),
        ("", {"EVENT_TRIGGER_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "EVENT_TRIGGER_BOOTSTRAP_SERVERS"),
    ],
)
def test_brokers_of_a_file_or_a_variable_do_not_make_a_run_of_the_bundled_stream_a_real_one(
    tmp_path: Path, file: str, variables: dict[str, str], place: str
) -> None:
    if file:
        (tmp_path / "event-trigger.yaml").write_text(file)
    done = run_in(tmp_path, **variables)
    assert done.returncode == 0
    assert f"{place} gives bootstrap_servers, but no runner is given: this is a run of the bundled" in done.stderr
    assert "FIRED us_page_view" in done.stdout


def test_make_run_reads_no_configuration(tmp_path: Path) -> None:
    make = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in make.splitlines() if "-m pipeline" in line]
    (tmp_path / "event-trigger.yaml").write_text("runner: FlinkRunner\nbootstrap_servers: 127.0.0.1:1\nrules: rules/\n")
    done = run_in(tmp_path, *line.split("-m pipeline")[1].split())
    assert done.returncode == 0
    assert "FIRED us_page_view" in done.stdout
