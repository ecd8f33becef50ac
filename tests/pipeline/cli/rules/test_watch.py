"""``rules watch`` on a folder, with a rules topic in memory."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.rules import watch as watching
from pipeline.cli.rules.watch import RuleWatch
from pipeline.kafka.rules_topic import PublishedSets
from pipeline.kafka.topics import TopicError
from tests.waiting import eventually
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.step_input import ShardSettings

RULE = """\
name: NAME
version: 1
filter: event.event_name == "page_view"
actions: [{type: debug}]
tests:
  - name: fires
    events: [{event_name: page_view}]
    expect: [debug]
"""


class Topic:
    """A rules topic in memory; ``failures`` are raised by the next readings."""

    topic = "event-rules"

    def __init__(self) -> None:
        self.sets: list[RuleSet] = []
        self.failures: list[TopicError] = []

    def read(self) -> PublishedSets:
        if self.failures:
            raise self.failures.pop()
        return PublishedSets(tuple(self.sets), (), len(self.sets))

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Topic]:
        yield self

    @property
    def published(self) -> PublishedSets:
        return self.read()

    def publish(self, rules: Sequence[Rule], by: str, note: str, now_ms: int) -> RuleSet:
        self.sets.append(RuleSet(len(self.sets) + 1, tuple(rules), now_ms, by, note))
        return self.sets[-1]

    @property
    def live(self) -> dict[str, int]:
        return self.sets[-1].versions if self.sets else {}


class Watched:
    """A watched folder, the topic, and the lines that were printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.topic = folder, Topic()
        self.lines: list[str] = []
        self.options: dict[str, Any] = {}

    def write(self, name: str, text: str = RULE) -> None:
        (self.folder / f"{name}.yaml").write_text(text.replace("NAME", name))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        topic: Any = self.topic
        watch = RuleWatch(self.folder, topic, ShardSettings(), "", {}, say=self.lines.append, **self.options)
        ended = threading.Event()
        thread = threading.Thread(target=watch.run, args=(ended.is_set,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(30)
        assert not thread.is_alive()

    def says(self, text: str, times: int = 1) -> None:
        eventually(lambda: sum(text in line for line in self.lines) >= times, f"{text!r} in {self.lines}", 30, 0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    (tmp_path / "rules").mkdir()
    return Watched(tmp_path / "rules")


def test_a_saved_file_is_checked_tested_and_published(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1: + one 1")
        watched.write("two")
        watched.says("changed: two.yaml")
        watched.says("published set 2: + two 1")
        watched.write(
            "one", RULE.replace("version: 1", "version: 2").replace('"page_view"\n', '"page_view" or false\n')
        )
        watched.says("published set 3: ~ one 2")
        (watched.folder / "two.yaml").unlink()
        watched.says("published set 4: - two")
    assert watched.topic.live == {"one": 2}
    assert "2 rules, 2 cases, 0 failed" in watched.lines


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one", RULE[:40], "one.yaml"),
        ("one", RULE.replace("event.event_name", "event."), "filter does not compile"),
        ("one", RULE.replace("expect: [debug]", "expect: nothing"), "one.yaml:6: one: fires: "),
        ("one", RULE.replace('"page_view"\nactions', '"other" or true\nactions'), "raise the version"),
        ("two", RULE.replace("NAME", "one"), "two.yaml"),
        ("one", "", "no rule in it"),
    ],
    ids=["half-saved", "no Lua", "a case fails", "no new version", "a name twice", "empty"],
)
def test_what_is_wrong_is_said_in_lines_and_the_live_set_stays(
    watched: Watched, name: str, text: str, message: str
) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        watched.write(name, text)
        watched.says(message)
        watched.says("nothing was published, the live set stays")
        assert len(watched.topic.sets) == 1
        (watched.folder / "two.yaml").unlink(missing_ok=True)
        watched.write("one", RULE.replace("version: 1", "version: 2"))
        watched.says("published set 2: ~ one 2")
    assert all("\n" not in line for line in watched.lines)


def test_the_deletion_of_all_files_or_of_the_folder_leaves_the_live_set(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        (watched.folder / "one.yaml").unlink()
        watched.says("error: ", 1)
        watched.folder.rmdir()
        # An empty folder and none look the same: nothing further is said.
        watched.folder.mkdir()
        watched.write("one")
        watched.says("nothing changes against the live set")
    assert len(watched.topic.sets) == 1


def test_a_burst_of_saves_is_published_once(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_QUIET_S", 2.0)  # on a busy machine the saves are further apart
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        for number in range(30):
            watched.write(f"rule-{number}", RULE[:50])
            watched.write(f"rule-{number}")
            time.sleep(0.02)  # longer than one look at the folder, all together
        watched.says("published set 2")
        watched.says("changed: rule-0.yaml, rule-1.yaml, ")
    assert len(watched.topic.sets) == 2
    assert len(watched.topic.live) == 31


def test_editors_temporary_files_are_no_rules(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        for name in (".one.yaml.swp", "one.yaml~", "#one.yaml#", "4913", ".one.yaml.kate-swp", "._one.yaml"):
            (watched.folder / name).write_text("garbage: [")
        (watched.folder / ".#one.yaml").symlink_to("nobody@nowhere.1234")
        # As editors save: a new file that takes the old one's name.
        new = watched.folder / "one.yaml.tmp"
        new.write_text(RULE.replace("NAME", "one").replace("version: 1", "version: 2"))
        new.replace(watched.folder / "one.yaml")
        watched.says("published set 2: ~ one 2")
    assert not any(line.startswith("error") for line in watched.lines)


def test_a_renamed_file_changes_nothing_and_is_not_published(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        (watched.folder / "one.yaml").rename(watched.folder / "other.yaml")
        watched.says("nothing changes against the live set")
    assert len(watched.topic.sets) == 1


def test_a_save_of_the_same_size_and_time_is_seen(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        file = watched.folder / "one.yaml"
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        new = watched.folder / "new"
        new.write_text(file.read_text().replace("version: 1", "version: 2"))
        os.utime(new, ns=times)
        new.replace(file)
        watched.says("published set 2")


def test_a_change_during_an_outage_of_kafka_is_published_afterwards(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_RETRY_S", 0.1)
    watched.write("one")
    watched.topic.failures = [TopicError("rules topic 'event-rules': no answer")] * 3
    with watched.running():
        watched.says("error: rules topic 'event-rules': no answer; tried again")
        watched.says("published set 1")
    assert sum("no answer" in line for line in watched.lines) == 1


def test_rules_that_the_job_has_no_place_for_are_refused(watched: Watched) -> None:
    def refuse(rules: tuple[Rule, ...]) -> None:
        raise RuleError(f"rule {rules[0].name!r}: destination is 'x'")

    watched.options["check"] = refuse
    watched.write("one")
    with watched.running():
        watched.says("error: rule 'one': destination is 'x'")
        watched.says("the live set stays")
    assert watched.topic.sets == []


def test_the_line_of_a_set_says_what_it_changes_against_what_somebody_else_published(watched: Watched) -> None:
    watched.write("one")
    with watched.running():
        watched.says("published set 1")
        watched.topic.publish((), "somebody", "", 1)
        watched.write("two")
        watched.says("published set 3: + one 1, + two 1")


@pytest.mark.parametrize("text", [RULE, "half: ["])
@pytest.mark.parametrize(("answer", "begins"), [("y\n", True), ("\n", False)])
def test_in_a_terminal_it_asks_once_before_it_replaces_the_live_set(
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    begins: bool,
    text: str,
) -> None:
    topic: Any = watched.topic
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    watched.write("one", text)
    watch = RuleWatch(watched.folder, topic, ShardSettings(), "", {})
    assert watching._agreed(watch, topic) is begins
    assert "whenever a file is saved? [y/N] " in capsys.readouterr().out


def test_a_program_is_not_asked(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    topic: Any = watched.topic
    watched.write("one")
    for stream in (io.StringIO(), None):
        monkeypatch.setattr("sys.stdin", stream)
        assert watching._agreed(RuleWatch(watched.folder, topic, ShardSettings(), "", {}), topic)
