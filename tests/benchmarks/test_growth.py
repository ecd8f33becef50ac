"""Growth's own logic: exponents, verdicts and tables of made-up figures, and that a point measures what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.growth import __main__ as growth
from tests.benchmarks.growth import report, stage
from tests.benchmarks.growth.dimensions import QUICK, Dimension, OnStack, Sizes, dimensions, point_figures
from tests.benchmarks.growth.stage import Discarding, Point
from tests.overridden import overridden

VALUES = (10, 50, 100, 200)


def costs(of: Callable[[float], float], values: tuple[float, ...] = VALUES) -> dict[float, float]:
    return {value: of(value) for value in values}


def dimension(claim: Any, base: float = 0) -> Dimension:
    return Dimension("made-up", "Made up", "things", claim, {}, base)


@pytest.mark.parametrize("k", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_a_power_is_found_whatever_its_factor(k: float) -> None:
    given = costs(lambda value: 7 * value**k)
    assert report.exponent(given) == pytest.approx(k)
    assert report.steepest(given) == pytest.approx(k)


def test_the_line_is_of_least_squares() -> None:
    # In units of log 10: (0, 0), (1, 1), (2, 0.5) have the slope 0.25; from the first to the second it is 1.
    given = {1.0: 1.0, 10.0: 10.0, 100.0: 10**0.5}
    assert report.exponent(given) == pytest.approx(0.25)
    assert report.steepest(given) == pytest.approx(1)


def test_a_value_of_nothing_is_left_out_of_the_fit_and_one_value_is_none() -> None:
    assert report.exponent({0: 5, 10: 1, 100: 10}) == pytest.approx(1)
    with pytest.raises(ValueError, match="1 values above 0"):
        report.exponent({0: 5, 10: 1})
    with pytest.raises(ValueError, match="1 values above 0"):
        report.steepest({10: 1})


@pytest.mark.parametrize(
    ("cost", "holds"),
    [
        (lambda value: 40 + 0.2 * value, True),
        (lambda value: value, True),
        (lambda value: value**1.3, False),
        # As a whole below linear, but not at its end.
        (lambda value: 1000 if value < 200 else 3000, False),
    ],
)
def test_at_most_linear(cost: Callable[[float], float], holds: bool) -> None:
    found = report.verdict(dimension("linear"), costs(cost))
    assert found.holds is holds
    assert ("not worse than linear" in found.text) is holds


@pytest.mark.parametrize(("largest", "holds"), [(1.29, True), (1.31, False)])
def test_flat_is_the_largest_against_the_base(largest: float, holds: bool) -> None:
    # What is below the base may be cheaper: it fits the caches of the processor.
    found = report.verdict(dimension("flat", 10_000), {1000: 0.5, 10_000: 1.0, 100_000: 1.1, 1_000_000: largest})
    assert found.holds is holds
    assert f"1,000,000 things against 10,000: x{largest:.2f}" in found.text


def test_level_is_the_worst_against_the_base() -> None:
    assert report.verdict(dimension("level", 1), {1: 60, 2: 90, 4: 61}).holds is False
    assert report.verdict(dimension("level", 1), {1: 60, 2: 70, 4: 40}).holds is True


@pytest.mark.parametrize("given", [{}, {10: 1.0}, {0: 1.0, 10: 1.0}])
def test_too_few_values_leave_it_open(given: dict[float, float]) -> None:
    assert report.verdict(dimension("linear"), given).holds is None


def test_flat_is_open_while_the_base_is_all_there_is() -> None:
    assert report.verdict(dimension("flat", 10_000), {1000: 1.0, 10_000: 9.0}).holds is None
    assert report.verdict(dimension("flat", 10_000), {1000: 1.0, 100_000: 1.0}).holds is None


def in_process(relative: float) -> dict[str, Any]:
    return {"relative": float(relative), "µs/event": 30.0 * relative, "memory B/user": 10_000.0}


def test_costs_are_medians_in_order() -> None:
    measured = {10: [in_process(3), in_process(1), in_process(2)], 1: [in_process(1), in_process(2)]}
    assert list(report.costs(measured).items()) == [(1, 1.5), (10, 2)]
    on_stack = {1: [{"worker µs/event": 40.0, "TaskManager µs/event": 25.0, "broker µs/event": 9.0}]}
    assert report.costs(on_stack) == {1: 65.0}


def test_a_dimension_in_markdown_has_a_row_a_value_and_says_what_holds() -> None:
    dimension = Dimension("users", "Users", "users", "flat", {"few": {}, "many": {}}, 10, note="A note.")
    measured = {"few": {10: [in_process(1)], 1000: [in_process(1.2)]}, "many": {10: [in_process(1)]}}
    assert report.text(dimension, measured).split("\n\n") == [
        "### Users",
        "**few**",
        "| users | µs/event | relative | memory B/user | runs |\n| --- | --: | --: | --: | --: |\n"
        "| 10 | 30 | 1.00 | 10,000 | 1 |\n| 1,000 | 36 | 1.20 | 10,000 | 1 |",
        "holds: cost ~ n^0.04, steepest step n^0.04; 1,000 users against 10: x1.20: flat (allowed: x1.3)",
        "**many**",
        "| users | µs/event | relative | memory B/user | runs |\n| --- | --: | --: | --: | --: |\n"
        "| 10 | 30 | 1.00 | 10,000 | 1 |",
        "open: too few values",
        "A note.",
    ]


def on_stack(p50: float | None) -> dict[str, Any]:
    return {"worker µs/event": 4.0, "TaskManager µs/event": 2.0, "broker µs/event": 1.0, "p50": p50, "p99": p50}


@pytest.mark.parametrize("p50", [30.0, None])
def test_plots_are_drawn(tmp_path: Path, p50: float | None) -> None:
    found = dimensions(QUICK)
    report.draw(tmp_path / "a.png", found["history"], {"": {10: [in_process(1)], 100: [in_process(2)]}})
    report.draw(tmp_path / "b.png", found["batch_linger_ms"], {"": {0: [on_stack(p50)], 20: [on_stack(p50)]}})
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))


# What is measured


@pytest.mark.parametrize("sizes", [Sizes(), QUICK])
def test_dimensions_vary_what_they_say_and_nothing_else(sizes: Sizes) -> None:
    for name, dimension in dimensions(sizes).items():
        for points in dimension.series.values():
            for value, point in points.items():
                if isinstance(point, Point):
                    assert getattr(point, name) == value
                elif name == "parallelism":
                    assert (point.slots, point.rate) == (value, 0)
                else:
                    assert point.options == (f"--{name}={value}",)
            same = {"events", "warm_up"} | ({"slots"} if name == "parallelism" else {name, "options"})
            assert (
                len({json.dumps({k: v for k, v in asdict(p).items() if k not in same}) for p in points.values()}) == 1
            )


def test_every_run_has_a_file_of_its_own_repeats_come_last_and_the_stack_after_all_else(tmp_path: Path) -> None:
    wanted = list(dimensions(Sizes()).values())
    runs = list(growth._runs(wanted, 3, 1, tmp_path))
    assert len({run.file for run in runs}) == len(runs)
    assert "users.100-events-of-history.1000000.1.json" in {run.file.name for run in runs}
    order = [(run.dimension.on_stack, run.repeat) for run in runs]
    assert order == sorted(order)
    assert {run.repeat for run in runs if run.dimension.on_stack} == {1}
    assert {run.repeat for run in runs if not run.dimension.on_stack} == {1, 2, 3}


def test_what_was_measured_is_not_measured_again_and_another_plan_is_refused(tmp_path: Path) -> None:
    (run, *_) = growth._runs([dimensions(QUICK)["rules"]], 1, 1, tmp_path)
    assert not growth._is_measured(run)
    run.file.write_text(json.dumps({"point": point_figures(run.point), **in_process(1)}))
    assert growth._is_measured(run)
    (other, *_) = growth._runs([dimensions(Sizes())["rules"]], 1, 1, tmp_path)
    with pytest.raises(SystemExit, match="is of another point"):
        growth._is_measured(other)


def test_the_report_is_written_from_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in growth._runs([dimensions(QUICK)["rules"]], 1, 1, tmp_path):
        run.file.write_text(json.dumps({"point": point_figures(run.point), **in_process(run.value)}))
    assert growth.main(["--quick", "--report_only", f"--out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "cost ~ n^1.00, steepest step n^1.00: not worse than linear" in printed
    assert (tmp_path / "tables.md").read_text() == printed
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["rules"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"rules.png"}


def test_users_who_do_not_fit_the_memory_are_told() -> None:
    assert growth._lacks_memory(Point(users=1_000_000), 20_000_000_000) is None
    assert growth._lacks_memory(Point(users=1_000_000), 14_000_000_000) == (
        "1,000,000 users with 100 events each need 16.0 GB with a reserve of 3, available are 14.0"
    )


# A point in process

SMALL = Point(users=60, history=20, rules=3, shards=4, bundle=40, fires=0.5, warm_up=400, events=2000)


@pytest.fixture(scope="module")
def filled() -> Iterator[Any]:
    with overridden():
        yield stage._filled(SMALL)


def test_a_filled_slot_knows_everybody_with_a_whole_history(filled: Any) -> None:
    counts = filled.slot.counts
    assert counts["users_fetched"] == 60
    assert counts["events_handled"] == 60
    assert counts.get("dead_letters", 0) == 0


def test_events_are_handled_actions_written_and_the_runner_sees_bytes(filled: Any) -> None:
    slot, before = filled.slot, dict(filled.slot.counts)
    written, actions = slot.runner.written, slot.actions
    took_s = [slot.run(filled.load.bundle()) for _ in range(10)]
    assert min(took_s) > 0
    assert slot.counts["events_handled"] - before["events_handled"] == 400
    assert slot.counts.get("state_misses", 0) == before.get("state_misses", 0)
    assert 100 < slot.actions - actions < 300  # half of 400
    assert slot.runner.written > written
    assert slot.action_bytes / slot.actions > 20 * 60  # each has its history


def test_state_that_has_left_the_cache_ends_a_measurement() -> None:
    runner = Discarding()
    key = stage.beam_fn_api_pb2.StateKey(
        bag_user_state=stage.beam_fn_api_pb2.StateKey.BagUserState(transform_id="t", user_state_id="s", key=b"k")
    )
    assert runner.get_raw(key) == (b"", None)
    runner.append_raw(key, b"12345")
    assert (runner.sizes[key.SerializeToString()], runner.written) == (5, 5)
    with pytest.raises(RuntimeError, match="state is read again"):
        runner.get_raw(key)
    runner.clear(key)
    assert runner.get_raw(key) == (b"", None)


def test_a_point_tells_all_that_the_tables_show() -> None:
    found = growth._in_process(SMALL)
    assert set(report._IN_PROCESS) <= set(found)
    assert found["relative"] > 0
    assert found["journal B/user"] > 500
    assert 0.3 < found["actions/event"] < 0.7


def test_a_point_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the point ended with 1"):
        growth._in_process(SMALL)


def test_a_point_has_no_other_fields() -> None:
    assert stage.point_of('{"users": 5}') == Point(users=5)
    with pytest.raises(ValueError, match="a point has no user"):
        stage.point_of('{"user": 5}')


def test_points_on_the_stack_are_given_the_comparisons_plan() -> None:
    from tests.benchmarks.growth.stack import _plan

    plan = _plan(OnStack(users=7, rate=300, seconds=12.0, slots=2))
    assert (plan.users, plan.rates, plan.rate_s, plan.parallelism) == (7, (300,), 12.0, 2)
