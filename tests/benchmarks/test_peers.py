"""The comparison's own logic: the work is the same for every row, and the figures follow from the samples."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import orjson
import pytest
import requests

from pipeline.launch.options import Settings
from tests.benchmarks import shards, user_api
from tests.benchmarks.peers import __main__ as bench
from tests.benchmarks.peers import analysis, report, sampling, systems, workload
from tests.benchmarks.peers.environments import REQUIREMENTS, version_of
from tests.benchmarks.peers.stack import check_no_letters
from tests.benchmarks.peers.systems import _JOBS, ROWS
from tests.benchmarks.webhooks import receiver
from tests.builders import filter_set, load_rules, rule
from transforms.domain.rules.action_topics import check_destinations
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.step_input import Answer
from transforms.domain.webhooks.destinations import Destination

AT_MS = 1_800_000_000_000


def take(given: workload.Workload, count: int, run: int = 1) -> list[tuple[bytes, bytes]]:
    """User and JSON of the first events."""
    events = itertools.islice(given.events(run), count)
    return [(user, workload.encode(run, n, user, hot, AT_MS + n)) for n, (user, hot) in enumerate(events)]


def test_events_are_of_the_size_that_the_comparison_names() -> None:
    sizes = [len(value) for _, value in take(workload.Workload("zipf", 1000), 500)]
    assert 600 <= min(sizes) <= max(sizes) <= 700


def test_a_seed_gives_the_same_events_and_another_run_other_ids() -> None:
    given = workload.Workload("zipf", 100, misses=0.1)
    users = list(itertools.islice(given.events(1), 2000))
    assert users == list(itertools.islice(given.events(1), 2000))
    ids = [orjson.loads(value)["event_id"] for run in (1, 2) for _, value in take(given, 500, run)]
    assert len(set(ids)) == 1000


def test_zipf_has_few_busy_users_and_uniform_none() -> None:
    busiest = {
        keys: Counter(user for user, _ in itertools.islice(workload.Workload(keys, 1000).events(1), 20_000))
        for keys in ("zipf", "uniform")
    }
    share = {keys: counts.most_common(1)[0][1] / 20_000 for keys, counts in busiest.items()}
    assert 0.1 < share["zipf"] < 0.2  # 1 of the sum of 1/n up to 1000, which is 7.49
    assert share["uniform"] < 0.005


def test_so_many_events_are_of_users_nobody_has_seen() -> None:
    given = workload.Workload("zipf", 100, misses=0.1)
    users = [user for user, _ in itertools.islice(given.events(1), 10_000)]
    strangers = [user for user in users if user not in set(given.known_users())]
    assert 900 < len(strangers) < 1100
    assert len(set(strangers)) == len(strangers)


def test_the_user_api_is_slow_for_everybody() -> None:
    given = workload.Workload("zipf", 10, misses=0.5)
    assert all(user.startswith(user_api.SLOW_PREFIX.encode()) for user, _ in take(given, 100))


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The plain loop's program, whose rules and bodies are every peer's."""
    monkeypatch.syspath_prepend(str(_JOBS))
    return importlib.import_module("plain_job")


class Api:
    """The user API without HTTP, as ``user_actions.UserApi`` hands it on."""

    def fetch(self, user_id: str) -> Any:
        user = user_id.encode()
        rows = [orjson.dumps(row).decode() for row in orjson.loads(user_api.history(user))]
        fetched = importlib.import_module("user_actions").Fetched
        return fetched(user_api.profile(user).decode(), orjson.loads(user_api.visit(user)), rows)


def ours(events: Sequence[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """Bodies of the actions that our state machine decides on."""
    shard = shards.Shard()
    shard._filters = filter_set((rule("bench", workload.FILTER),))
    shard.now_ms = max(orjson.loads(value)["timestamp"] for _, value in events)  # none is ahead of its record
    users = dict.fromkeys(user for user, _ in events)
    bodies = []
    for user in users:
        shard.advance(answers=[Answer(user.decode(), shards.fetched(user))])
    for user, value in events:
        done = shard.advance([value], [user])
        if done.users_to_fetch:
            done = shard.advance(answers=[Answer(user.decode(), shards.fetched(user)) for user in users])
        bodies += [orjson.loads(action.body) for action in done.actions]
    return bodies


def test_a_peer_decides_and_writes_what_our_pipeline_does(peer: ModuleType) -> None:
    events = take(workload.Workload("zipf", 12), 700)
    users: dict[str, Any] = {}
    bodies = [peer.handle(users, Api(), value, 0.0) for _, value in events]
    theirs = [orjson.loads(body) for body in bodies if body is not None]
    assert theirs
    assert theirs == ours(events)
    assert [body["event"]["event_id"] for body in theirs] == [
        event["event_id"] for _, value in events if workload.fires(event := orjson.loads(value))
    ]


def test_a_peer_forgets_who_is_idle(peer: ModuleType) -> None:
    users: dict[str, Any] = {}
    (user, value), *_ = take(workload.Workload("zipf", 1), 1)
    peer.handle(users, Api(), value, 100.0)
    peer.forget_idle(users, 700.0)
    assert list(users) == [user.decode()]
    peer.forget_idle(users, 700.1)
    assert users == {}


def samples(*actions: int) -> list[sampling.Sample]:
    """One a second; the worker takes half a second of CPU in each."""
    return [
        sampling.Sample(float(at), done, {"worker": at / 2}, {"worker": 100.0 + at}) for at, done in enumerate(actions)
    ]


def test_the_steady_stretch_leaves_the_start_and_the_end_out() -> None:
    limits = sampling.Limits(first_actions=10, all_actions=110, settle_s=60, window_s=60)
    taken = samples(0, 5, 20, 36, 60, 90, 104, 106, 110)
    stretch = sampling.steady(taken, limits)
    assert stretch is not None
    assert [point.actions for point in stretch] == [36, 106]
    assert sampling.rates(*stretch, events_per_action=20) == {
        "events/s": 350.0, "seconds": 4.0, "worker µs/event": pytest.approx(2.0 / 1400 * 1e6),
    }  # fmt: skip
    assert sampling.peak_rss(taken) == {"worker RSS MB": 108.0}


def test_a_slow_row_is_measured_for_as_long_as_the_limits_say() -> None:
    limits = sampling.Limits(first_actions=10, all_actions=100_000, settle_s=2, window_s=3)
    stretch = sampling.steady(samples(*range(0, 100, 5)), limits)
    assert stretch is not None
    assert [point.at_s for point in stretch] == [4.0, 7.0]


def test_there_is_no_stretch_before_it_has_ended() -> None:
    limits = sampling.Limits(first_actions=10, all_actions=1000, settle_s=2, window_s=30)
    assert sampling.steady(samples(*range(0, 100, 5)), limits) is None


def test_a_row_that_stands_still_has_no_rate() -> None:
    start, end = samples(7, 7)
    with pytest.raises(ValueError, match="stands still"):
        sampling.rates(start, end, 20)


def test_cpu_and_children_of_this_process_are_found() -> None:
    assert sampling.cpu_seconds([1_000_000_000]) == 0.0
    parent = importlib.import_module("os").getpid()
    started = importlib.import_module("subprocess").Popen(["sleep", "30"])
    try:
        assert started.pid in sampling.process_tree([parent])
        assert sampling.rss_mb([parent]) > 10 > sampling.rss_mb([1_000_000_000])
    finally:
        started.kill()
        started.wait()


def test_the_time_of_compiling_threads_is_found() -> None:
    compiled, ending = threading.Event(), threading.Event()

    def compile_for_a_while() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("C2 CompilerThre")
        while time.thread_time() < 0.05:
            pass
        compiled.set()
        ending.wait(60)

    thread = threading.Thread(target=compile_for_a_while)
    assert sampling.compiler_seconds([os.getpid(), 1_000_000_000]) == 0.0
    thread.start()
    try:
        assert compiled.wait(60)
        assert sampling.cpu_seconds([os.getpid()]) > sampling.compiler_seconds([os.getpid()]) >= 0.04
    finally:
        ending.set()
        thread.join()


def log(expected: dict[str, int], actions: dict[str, list[int]]) -> analysis.Log:
    return analysis.Log({name: analysis.Expected(at_ms) for name, at_ms in expected.items()}, actions)


def test_latency_is_the_first_action_after_the_events_own_append() -> None:
    given = log({f"e{n}": n for n in range(100)}, {f"e{n}": [n + 10 + n, n + 5000] for n in range(100)})
    assert analysis.latency(given, 0, 100) == {"actions": 100, "p50": 60, "p99": 109, "p99.9": None, "max": 109}
    assert analysis.latency(given, 10, 20)["actions"] == 10
    assert analysis.latency(given, 1000, 2000)["p50"] is None


def test_thousandths_are_told_of_enough_actions() -> None:
    given = log({f"e{n}": 0 for n in range(2000)}, {f"e{n}": [n] for n in range(2000)})
    assert analysis.latency(given, 0, 1)["p99.9"] == 1998


def test_what_is_lost_and_what_came_twice_is_counted() -> None:
    given = log({"a": 0, "b": 0, "c": 0}, {"a": [1], "b": [1, 2, 3], "x": [5]})
    assert analysis.fidelity(given) == {"expected": 3, "lost": 1, "duplicated": 2, "unexpected": 1}


def test_a_row_has_recovered_when_events_wait_no_longer() -> None:
    given = log(
        {"before": 900, "waited": 1500, "long": 4000, "soon": 9000},
        {"before": [950, 6000], "waited": [6500], "long": [7500], "soon": [9020]},
    )
    assert analysis.recovery(given, 1000) == {"first action s": 5.0, "caught up s": 6.5}
    assert analysis.recovery(log({}, {}), 1000) == {"first action s": None, "caught up s": None}


def drained(rate: float, worker: float, task_manager: float) -> dict[str, Any]:
    cpu = {"worker µs/event": worker, "TaskManager µs/event": task_manager}
    return {"events/s": rate, "rounds": [rate], "samples": [[0, 1]], **cpu}


def test_rows_of_our_own_have_the_rules_that_the_comparison_names(tmp_path: Path) -> None:
    def rules(text: str) -> dict[str, Rule]:
        (tmp_path / "rules.yaml").write_text(text)
        return {rule.name: rule for rule in load_rules(tmp_path / "rules.yaml")}

    plain, ten, webhook = rules(workload.RULE), rules(workload.TEN_RULES), rules(workload.WEBHOOK_RULE)
    assert ten["bench"] == plain["bench"]
    assert [len(ten), sum(rule.cap is not None for rule in ten.values())] == [10, 5]
    assert sum(rule.sequence is not None for rule in ten.values()) == 4
    assert [name for name, rule in ten.items() if any(action.type == "kafka" for action in rule.actions)] == ["bench"]
    assert [action.type for action in webhook["bench"].actions] == ["kafka", "webhook"]


@pytest.mark.parametrize("row", ["shards", "users", "exactly-once", "ten-rules", "decisions", "webhooks"])
def test_rows_of_our_own_are_jobs_that_a_launch_takes(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[tuple[Settings, RuleSet, tuple[Destination, ...]]] = []

    def submit(settings: Settings, rules: RuleSet, master: str, destinations: tuple[Destination, ...]) -> str:
        submitted.append((settings, rules, destinations))
        return "job"

    monkeypatch.setattr(systems, "submit", submit)
    monkeypatch.setattr(systems, "FlinkCluster", lambda **_: nullcontext(SimpleNamespace(flink_master="nowhere:1")))
    wiring = systems.Wiring("k:9092", Path("data"), "http://a", "events", "actions", "dead", "decided", "g", 60.0, 10)
    with ROWS[row].start(1) as start:
        start(wiring)
        ((settings, rule_set, destinations),) = submitted
        for rule in rule_set.rules:
            check_destinations(rule, [destination.name for destination in destinations])
        settings.topics_of_actions(rule_set.rules).check(rule_set.rules)
    assert settings.decisions_topic == ("decided" if row == "decisions" else None)
    assert len(rule_set.rules) == (10 if row == "ten-rules" else 1)
    assert len(destinations) == (row == "webhooks")


def test_the_receiver_of_webhooks_answers_without_tls() -> None:
    with receiver(latency_ms=1, pem=None) as port:
        assert requests.post(f"http://127.0.0.1:{port}/", data=b"x" * 100_000, timeout=30).status_code == 204


class Letters:
    """A topic of dead letters."""

    name = "dead"

    def __init__(self, *letters: bytes) -> None:
        self._letters = letters

    def ends(self) -> list[int]:
        return [len(self._letters)]

    def records(self, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        return iter([(0, letter) for letter in self._letters[:limit]])


def test_a_row_with_dead_letters_does_not_count() -> None:
    check_no_letters(Letters())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dead: 2 dead letters, the first: b'rule_error'"):
        check_no_letters(Letters(b"rule_error", b"other"))  # type: ignore[arg-type]


def test_ratios_are_against_our_row_and_the_plain_loop() -> None:
    results = {
        "shards": {"zipf": drained(20_000.0, 30, 10)},
        "pyflink-process": {"zipf": drained(4000.0, 200, 40)},
        "plain": {"zipf": drained(50_000.0, 20, 0)},
    }
    text = "\n".join(report.tables(results))
    assert f"| {ROWS['pyflink-process'].title} | 5.00 | 6.00 | 12.00 |" in text
    assert f"| {ROWS['shards'].title} | 1.00 | 1.00 | 2.00 |" in text
    assert f"| {ROWS['plain'].title} | 0.40 | 0.50 | 1.00 |" in text


def test_all_rounds_are_shown() -> None:
    figures = analysis.best_round([drained(7000.0, 90, 10), drained(12_000.0, 60, 10), drained(9.5, 1, 1)])
    (_, table, _) = report.tables({"shards": {"zipf": figures}})
    assert f"| {ROWS['shards'].title} | 12,000 | 7,000 / 12,000 / 9.5 | 60 |" in table


def loaded() -> dict[str, Any]:
    told = {"kept up": True, "p50": 20, "p99": 70, "p99.9": None, "max": 90, "actions": 500, "worker µs/event": 40.0}
    skipped = {"skipped": "its highest rate is 900/s"}
    checkpoints = {"checkpoints": 2, "checkpoint MB": 1.5, "state MB": 12.0, "checkpoint s": 0.2}
    survived = {"first action s": 7.5, "caught up s": 9.0}
    came = {"expected": 900, "lost": 0, "duplicated": 3, "unexpected": 0}
    return {"rates": {"500": told, "5000": skipped}, **checkpoints, **survived, **came}


def test_the_report_has_tables_and_plots(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report.write(tmp_path, {"shards": {"zipf": drained(20_000.0, 30, 10), "load": loaded()}}, plot=True)
    shown = capsys.readouterr().out
    assert "its highest rate is 900/s" in shown
    assert "| 500 | yes | 20 | 70 | - | 90 | 500 | 40 |" in shown
    assert {file.name for file in tmp_path.iterdir()} == {
        "results.json", "tables.md", "throughput.png", "cpu.png", "latency.png", "progress.png",
    }  # fmt: skip


def test_figures_of_two_plans_do_not_get_into_one_folder(tmp_path: Any) -> None:
    def plan(*argv: str) -> Any:
        return bench._plan(bench._parser().parse_args(argv))

    bench._same_plan(tmp_path, plan())
    bench._same_plan(tmp_path, plan())
    with pytest.raises(SystemExit, match="another run"):
        bench._same_plan(tmp_path, plan("--users=2000"))


def test_a_full_run_says_that_it_takes_little_more_than_an_hour() -> None:
    given = bench._parser().parse_args([])
    assert bench._minutes(list(bench._wanted(given.rows, given.parts, given.rounds)), bench._plan(given)) < 70


def test_of_all_rounds_the_best_counts(tmp_path: Any) -> None:
    given = bench._parser().parse_args(["--rows", "shards", "plain", "--parts", "zipf", "load", "--rounds=2"])
    wanted = list(bench._wanted(given.rows, given.parts, given.rounds))
    assert wanted == [
        ("shards", "zipf", 1), ("shards", "load", 1), ("plain", "zipf", 1), ("plain", "load", 1),
        ("shards", "zipf", 2), ("plain", "zipf", 2),
    ]  # fmt: skip
    rates = {"shards": (200.0, 300.0, 100.0), "plain": (9.0, 8.0)}
    for row, of_row in rates.items():
        for number, rate in enumerate(of_row, 1):
            bench._file(tmp_path, row, "zipf", number).write_text(json.dumps({"events/s": rate, "number": number}))
    assert bench._results(tmp_path) == {
        "shards": {"zipf": {"events/s": 300.0, "number": 2, "rounds": [200.0, 300.0, 100.0]}},
        "plain": {"zipf": {"events/s": 9.0, "number": 1, "rounds": [9.0, 8.0]}},
    }


@pytest.mark.parametrize("name", ["pyflink", "quix", "plain"])
def test_every_requirement_of_a_peer_is_pinned_by_hash(name: str) -> None:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if "==" in line]
    assert len(pins) > 5
    assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in pins)


def test_the_peers_are_the_releases_that_the_comparison_names() -> None:
    assert version_of("pyflink", "apache-flink").startswith("1.19.")
    assert version_of("quix", "quixstreams")
