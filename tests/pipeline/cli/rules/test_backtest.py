"""``event-trigger rules backtest`` as somebody at a shell sees it."""

from __future__ import annotations

import gzip
import importlib.util
import io
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from matplotlib.figure import Figure

from pipeline import console
from pipeline.cli.main import main
from pipeline.cli.rules import backtest
from pipeline.embedded.stream import FIRST_EVENT_MS, bundled_records
from pipeline.embedded.user_api import UserApi
from tests.builders import NOW_MS
from tests.pipeline.launch.test_run import debug_events
from transforms.domain.events.record import Record
from transforms.domain.simulation.recordings import records_of

RULE = """\
name: {name}
version: 1
filter: |
  {filter}
actions: [{{type: debug}}]
"""
MINUTE_MS = 60_000


def rules(folder: Path, **filters: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in filters.items():
        (folder / f"{name}.yaml").write_text(RULE.format(name=name, filter=text))
    return folder


def event(number: int, user_id: str = "a", **fields: Any) -> dict[str, Any]:
    """One a minute."""
    at_ms = NOW_MS + number * MINUTE_MS
    return {"event_id": f"e{number}", "user_id": user_id, "event_name": "go", "timestamp": at_ms} | fields


def recording(path: Path, *events: Any) -> Path:
    content = b"".join(event if isinstance(event, bytes) else orjson.dumps(event) + b"\n" for event in events)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def run(*arguments: object) -> int:
    return main(["rules", "backtest", *map(str, arguments)])


def table(text: str) -> dict[str, dict[str, str]]:
    """Rows of the first table, by rule."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("rule "))
    heading = lines[start].split()
    rows = {}
    for line in lines[start + 1 :]:
        cells = line.split()
        if len(cells) != len(heading) + 1:
            break
        rows[cells[0]] = dict(zip(heading[1:], cells[2:], strict=True))
    return rows


def interrupting(monkeypatch: pytest.MonkeyPatch, *at: int) -> None:
    """Press Ctrl-C before the records of these numbers."""

    def records(*arguments: Any) -> Iterator[Record]:
        for number, record in enumerate(records_of(*arguments)):
            for _ in range(at.count(number)):
                signal.raise_signal(signal.SIGINT)
            yield record

    monkeypatch.setattr(backtest, "records_of", records)


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_the_report_says_what_each_rule_did(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = rules(tmp_path / "rules", always="true", bad="event.a.b")
    events = recording(tmp_path / name, *(event(n, "ab"[n % 2]) for n in range(1500)), b"{\n", event(1499, "b"))
    assert run(folder, "--events", events, "--state_ttl_seconds=100000") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].startswith(
        "1,502 events of 2 users, 2024-01-01T00:00:00Z to 2024-01-02T00:59:00Z (1 day, 0:59:00); "
    )
    assert "dead letters: 1,501 (rule_error 1,500, not_json 1)\n" in shown.out
    assert "duplicates: 1, not evaluated\n" in shown.out
    assert table(shown.out) == {
        "always": {"evaluated": "1,500", "allowed": "1,500", "fired": "1,500", "errors": "0", "users": "2"},
        "bad": {"evaluated": "1,500", "allowed": "0", "fired": "0", "errors": "1,500", "users": "0"},
    }
    assert "bad: first error: bad:1: attempt to index field 'a' (a nil value)\n" in shown.out
    # On a slow machine there is progress to show.
    assert re.fullmatch(r"(backtest  [0-9,]+ events, at \S+, [0-9,]+ events/s\n)*", shown.err)


@pytest.mark.slow
def test_the_bundled_stream_does_what_it_does_on_directrunner(tmp_path: Path) -> None:
    later_ms = FIRST_EVENT_MS + 24 * 3_600_000  # than every event
    lines = [
        {"timestamp_ms": later_ms + number, "key": key.decode(), "value": value.decode()}
        for number, (key, value) in enumerate(bundled_records())
    ]
    events = recording(tmp_path / "events.jsonl", *lines)
    with UserApi() as api:
        run(
            *("pipeline/embedded/rules", "--events", events, f"--user_api_url={api.url}", "--user_api_concurrency=3"),
            *("--actions", tmp_path / "actions.jsonl", "--json", tmp_path / "report.json"),
        )
    command = [sys.executable, "-m", "pipeline", "--verbose"]
    on_runner = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    sent = [orjson.loads(line) for line in (tmp_path / "actions.jsonl").read_bytes().splitlines()]
    expected = Counter(
        orjson.dumps(event.body, option=orjson.OPT_SORT_KEYS) for event in debug_events(on_runner.stdout)
    )
    assert Counter(orjson.dumps(action["body"], option=orjson.OPT_SORT_KEYS) for action in sent) == expected
    report = orjson.loads((tmp_path / "report.json").read_bytes())
    assert report["events"] == 2400
    assert sum(report["dead_letters"].values()) == on_runner.stderr.count("DEAD LETTER ") == 24
    assert {rule["rule"]: rule["counts"]["fired"] for rule in report["rules"]} == Counter(
        action["rule"] for action in sent
    )


def test_what_would_have_been_sent_is_written(tmp_path: Path) -> None:
    folder = rules(tmp_path / "rules", always="true")
    events = recording(tmp_path / "e", event(0), event(5, "b"))
    assert run(folder, "--events", events, "--actions", tmp_path / "actions") == 0
    first, second = map(orjson.loads, (tmp_path / "actions").read_bytes().splitlines())
    assert first["body"]["event"]["event_id"] == "e0"
    assert set(first) == {"time", "rule", "version", "action", "action_id", "user_id", "body"}
    assert (second["time"], second["rule"], second["version"]) == (NOW_MS + 5 * MINUTE_MS, "always", 1)
    assert (second["action"], second["user_id"]) == ("debug", "b")


def test_profiles_of_a_file_are_what_the_user_api_would_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rules(
        tmp_path / "rules",
        us="user.country == 'US' and visit.page_count == 7 and history[1].sku == 'x'",
        unknown="user.enrichment == 'unknown'",
    )
    past = {"event_id": "p", "event_name": "view", "timestamp": NOW_MS - 1, "sku": "x"}
    visit = {"visit_id": "v", "start_time": NOW_MS - 2, "page_count": 7, "is_first_visit": False}
    profiles = recording(
        tmp_path / "profiles",
        {"user_id": "a", "profile": {"country": "US"}, "visit": visit, "history": [past]},
        {"user_id": "b", "profile": {}},
        {"user_id": "c", "profile": None},
    )
    events = recording(tmp_path / "e", *(event(n, user_id) for n, user_id in enumerate("abcd")))
    assert run(folder, "--events", events, "--profiles", profiles, "--history_fields=sku") == 0
    shown = capsys.readouterr().out
    assert {name: row["fired"] for name, row in table(shown).items()} == {"us": "1", "unknown": "2"}
    assert "profiles loaded: fetched 2, unknown 2\n" in shown


def test_times_bound_what_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rules(tmp_path / "rules", always="true")
    events = recording(tmp_path / "e", *(event(n) for n in range(10)))
    bounds = ("--from=2024-01-01T00:02:00Z", "--until=2024-01-01T01:05:00+01:00")
    assert run(folder, "--events", events, *bounds) == 0
    assert "3 events of 1 users, 2024-01-01T00:02:00Z to 2024-01-01T00:04:00Z (0:02:00)" in capsys.readouterr().out


def test_standard_input_may_be_the_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = recording(tmp_path / "e", event(0), event(1)).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(rules(tmp_path / "rules", always="true"), "--events", "-") == 0
    assert capsys.readouterr().out.startswith("2 events of 1 users")


def test_two_rule_sets_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rules(tmp_path / "before", same="true", changed="event.n < 5")
    after = rules(tmp_path / "after", same="true", changed="event.n < 2", new="event.n == 1")
    events = recording(tmp_path / "e", *(event(n, f"u{n}", n=n) for n in range(10)))
    assert run(before, "--events", events, "--compare", after, "--json", tmp_path / "json") == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"before: {before}, after: {after}")
    assert [line.split() for line in lines[at + 2 :]] == [
        ["changed", "5", "2", "-3", "5", "2", "0", "3"],
        ["same", "10", "10", "0", "10", "10", "0", "0"],
        ["new", "-", "1", "+1", "-", "1", "1", "0"],
    ]
    assert len(lines) == at + 5  # and nothing of groups
    compared = orjson.loads((tmp_path / "json").read_bytes())["compared"]
    assert [(rule["rule"], rule["users_gained"], rule["users_lost"]) for rule in compared] == [
        ("changed", 0, 3),
        ("same", 0, 0),
        ("new", 1, 0),
    ]


def test_a_comparison_shows_what_groups_keep_from_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for name, count, first in (("before", 1, "a"), ("after", 2, "b")):
        folders.append(rules(tmp_path / name, a="true", b="event.n ~= 1"))
        (folders[-1] / "groups.yaml").write_text(f"groups: {{g: {{cap: {{count: {count}, window: 1h}}}}}}\n")
        for rule in ("a", "b"):
            with (folders[-1] / f"{rule}.yaml").open("a") as file:
                file.write(f"group: g\npriority: {9 if rule == first else 1}\n")
    events = recording(tmp_path / "e", *(event(n, n=n) for n in range(3)))
    assert run(folders[0], "--events", events, "--compare", folders[1]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(["rule", "not", "sent", "before", "after", "change"])
    assert lines[at + 1 :] == [["b", "outranked", "1", "0", "-1"]]


def test_rules_may_run_in_a_process_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = recording(tmp_path / "e", event(0))
    assert run(rules(tmp_path / "rules", always="true"), "--events", events, "--rules_isolation=process") == 0
    assert table(capsys.readouterr().out)["always"]["fired"] == "1"


def test_an_interrupt_gives_the_report_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, 3)
    events = recording(tmp_path / "e", *(event(n) for n in range(10)))
    handler = signal.getsignal(signal.SIGINT)
    assert run(rules(tmp_path / "rules", always="true"), "--events", events, "--json", tmp_path / "json") == 130
    shown = capsys.readouterr().out
    assert shown.startswith("interrupted; so far:\n3 events of 1 users")
    assert table(shown)["always"]["fired"] == "3"
    assert orjson.loads((tmp_path / "json").read_bytes())["events"] == 3
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_second_interrupt_does_not_wait_for_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, 3, 3)
    events = recording(tmp_path / "e", *(event(n) for n in range(10)))
    assert run(rules(tmp_path / "rules", always="true"), "--events", events) == 130
    assert capsys.readouterr().out == ""


def test_progress_is_shown_if_it_takes_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LINE_S", 0.0)
    events = recording(tmp_path / "e", *(event(n) for n in range(600)))
    assert run(rules(tmp_path / "rules", always="true"), "--events", events) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("Z, ")[0] for line in lines] == [
        "backtest  256 events, at 2024-01-01T04:15:00",
        "backtest  512 events, at 2024-01-01T08:31:00",
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    write = Figure.savefig

    def note(figure: Figure, *arguments: Any, **named: Any) -> None:
        figures.append(figure)
        write(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", note)
    return figures


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 20, 35])
def test_a_plot_has_a_row_for_each_rule(tmp_path: Path, drawn: list[Figure], number: int) -> None:
    folder = rules(tmp_path / "rules", **{f"rule_{n:02}": f"event.n < {n * 10}" for n in range(number)})
    events = recording(tmp_path / "e", *(event(n, n=n) for n in range(120)))
    assert run(folder, "--events", events, "--plot", tmp_path / "plot.png") == 0
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (figure,) = drawn
    first = max(0, number - 30)  # those that fire most
    assert [axis.get_ylabel() for axis in figure.axes] == [
        f"rule_{n:02}\n{min(n * 10, 120)}" for n in range(first, number)
    ]
    title = "Firings per minute" + (" (of the 30 rules that fire most, 5 are left out)" if number == 35 else "")
    assert figure.get_suptitle() == title


def test_a_plot_shows_how_often_a_rule_fired_when(tmp_path: Path, drawn: list[Figure]) -> None:
    before, after = rules(tmp_path / "a", r="true"), rules(tmp_path / "b", r="event.n > 500")
    events = recording(tmp_path / "e", *(event(n, n=n) for n in range(1000)))
    assert run(before, "--events", events, "--compare", after, "--plot", tmp_path / "plot.svg") == 0
    (figure,) = drawn
    (axis,) = figure.axes
    assert figure.get_suptitle() == "Firings per 5 minutes"
    assert axis.get_ylabel() == "r\n1,000 → 499"
    (line,) = axis.get_lines()
    assert list(line.get_ydata()) == [4, *[5] * 99, 0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(before), str(after)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err


def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, events = rules(tmp_path / "rules", always="true"), recording(tmp_path / "e", event(0))
    assert "--events=FILE or --bootstrap_servers" in refused(capsys, folder)
    assert "--events=FILE or --boot" in refused(capsys, folder, "--events", events, "--bootstrap_servers=h:1")
    assert "unknown option '--evens': did you mean --events?" in refused(capsys, folder, "--evens=x")
    assert "nothing.jsonl: No such file" in refused(capsys, folder, "--events", tmp_path / "nothing.jsonl")
    assert "--from is 'monday', allowed" in refused(capsys, folder, "--events", events, "--from=monday")
    two = ("--profiles", events, "--user_api_url=http://localhost:1")
    assert "give one" in refused(capsys, folder, "--events", events, *two)
    assert "--plot is 'x.doc', allowed" in refused(capsys, folder, "--events", events, "--plot", "x.doc")
    assert "no such directory" in refused(capsys, folder, "--events", events, "--json", tmp_path / "no" / "x")
    broken = recording(tmp_path / "broken", {"timestamp_ms": "x", "value": {}})
    assert f"{broken}:1: timestamp_ms is 'x'" in refused(capsys, folder, "--events", broken)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(orjson.dumps(event(0)) * 100)[:-20])
    assert "cut.gz: no gzip file, or the end" in refused(capsys, folder, "--events", tmp_path / "cut.gz")
    (tmp_path / "no.gz").write_bytes(b"{}")
    assert "no.gz: no gzip file" in refused(capsys, folder, "--events", tmp_path / "no.gz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install matplotlib" in refused(capsys, folder, "--events", events, "--plot", "x.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "unexpected end of data"),
        (b"[]", "user_id, profile"),
        ({"profile": {}}, "user_id, profile"),
        ({"user_id": "a", "profile": 3}, "profile: a JSON int, allowed is an object"),
        ({"user_id": "a", "profile": {}, "visit": {}}, "visit: Object missing required field"),
        ({"user_id": "a", "profile": {}, "history": [{}]}, "history: Object missing required field"),
        (b'{"user_id": "a", "profile": {}}\n{"user_id": "a", "profile": {}}', "2: user 'a' is there twice"),
    ],
)
def test_profiles_that_cannot_be_used_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, message: str
) -> None:
    folder, events = rules(tmp_path / "rules", always="true"), recording(tmp_path / "e", event(0))
    profiles = recording(tmp_path / "profiles", line)
    error = refused(capsys, folder, "--events", events, "--profiles", profiles)
    assert f"{profiles}:" in error
    assert message in error


def test_a_rule_that_cannot_be_used_is_a_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = recording(tmp_path / "e", event(0))
    assert run(rules(tmp_path / "rules", bad="event."), "--events", events) == 1
    assert "does not compile" in capsys.readouterr().err
