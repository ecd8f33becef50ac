"""F12, F13: the job is stopped with a savepoint and goes on from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.builders import PAIRS, event, rule_documents
from tests.faults.experiment import OPTIONS, Experiment, Result, experiment
from tests.faults.stack import Stack
from tests.faults.verdict import HOOK_DOCUMENT
from tests.integration.jobs import Topics, inspect, reading, submit
from tests.integration.user_api import serve_users
from tests.oracle import Oracle

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]


def change_a_rule(run: Experiment) -> Callable[[Oracle], None]:
    """The first sample rule asks for another country and is a version further; profiles have a field that is new."""
    documents = [*rule_documents("kafka"), HOOK_DOCUMENT]
    documents[0] |= {"version": 3, "filter": documents[0]["filter"].replace('"US"', '"DE"')}
    run.rules.write_text(yaml.safe_dump_all(documents))
    _, _, allows = PAIRS[0]

    def allows_germans(event: Any, user: Any, visit: Any, history: Any) -> bool:
        return bool(allows(event, {**user, "country": {"DE": "US"}.get(user.get("country"))}, visit, history))

    def change(oracle: Oracle) -> None:
        oracle.rules[0] = replace(oracle.rules[0], version=3, allows=allows_germans)
        add_tier(oracle.api)

    def add_tier(known: Mapping[str, Any]) -> None:
        for answers in known.values():
            answers["profile"]["tier"] = "gold"

    add_tier(run.known)
    return change


def nothing_changes() -> Callable[[Oracle], None]:
    return lambda oracle: None


def test_f12_savepoint_and_rescale(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    description = "savepoint, parallelism 2, 4, 2, with a new profile field and a changed rule"
    result = results(Result("F12", description, 2, seed))
    with experiment(stack, tmp_path, result, "--parallelism=2") as run:
        for parallelism in (4, 2):
            # Short, so that some users have not been seen before the change.
            run.pause(2, 4)
            started_s = time.monotonic()
            meanwhile = partial(change_a_rule, run) if parallelism == 4 else nothing_changes
            run.move(f"--parallelism={parallelism}", meanwhile=meanwhile)
            result.recovery_s.append(time.monotonic() - started_s)
        run.wait_for_checkpoints(1)


def test_f13_users_are_forgotten_on_time_across_a_restore(
    stack: Stack, tmp_path: Path, seed: int, results: Keep
) -> None:
    """One is idle for its TTL while the job runs again, one while nothing runs."""
    ttl_s, tick_s = 90.0, 1.0
    result = results(Result("F13", "savepoint and restore within a user's TTL", 1, seed))
    topics, rules = Topics(stack.kafka), tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump_all(rule_documents("kafka")))
    with (
        serve_users({}) as api,
        reading(stack.kafka, topics.inspections) as inspections,
        reading(stack.kafka, topics.actions) as actions,
    ):
        given = [f"--user_api_url={api}", f"--control_topic={topics.control}", f"--state_ttl_seconds={ttl_s}", *OPTIONS]

        def seen_at(user: str) -> float | None:
            state = inspect(topics, inspections, [user])[user]
            return state["last_seen"] / 1000 if state["found"] else None

        def produce(user: str) -> None:
            body = event(user, parameters={"utm_source": "google"}, event_type="pageview")
            topics.produce([(user.encode(), orjson.dumps(body))])
            actions.until(len(actions.messages) + 1, 60)

        job_id = submit(stack.flink, topics, rules, *given)
        try:
            produce("early")
            early = seen_at("early")
            assert early is not None
            time.sleep(max(0.0, early + ttl_s * 0.6 - time.time()))
            produce("late")
            savepoint = stack.flink.rest.stop(job_id)
            time.sleep(max(0.0, early + ttl_s - time.time()))
            job_id = submit(stack.flink, topics, rules, *given, f"--savepoint_path={savepoint}")
            late = seen_at("late")
            assert late is not None
            assert time.time() < late + ttl_s, "restored too late to see it alive: nothing is shown"
            assert seen_at("early") is None
            inspected_s = time.time()
            while seen_at("late") is not None:
                inspected_s = time.time()
                assert inspected_s < late + ttl_s + tick_s + 1, f"known {inspected_s - late:.1f} s after its last event"
            assert time.time() >= late + ttl_s, "forgotten before its time"
            result.notes["TTL"] = f"{ttl_s:g} s"
            result.notes["last known after"] = f"{inspected_s - late:.1f} s"
            result.notes["gone when asked after"] = f"{time.time() - late:.1f} s"
            result.verdict.events = 2
        finally:
            stack.flink.rest.cancel(job_id)
            stack.flink.rest.wait_for_state(job_id, {"CANCELED"}, 60)
    stack.check_nothing_is_left()
