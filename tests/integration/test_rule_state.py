"""Rule state on real Kafka and Flink: it outlives the idle TTL and a killed TaskManager."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import event
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.integration.jobs import PATIENT, Reader, Topics, inspect, reading, running
from tests.integration.user_api import serve_users

pytestmark = pytest.mark.stack

USERS = [f"user-{number:02d}" for number in range(40)]
LEAVERS, BUYERS = USERS[:20], USERS[20:]
WITHIN_S = 20  # long enough for a slow machine to begin all sequences and to complete two checkpoints


def rules(path: Path, quiet_until: datetime) -> Path:
    """Quiet hours that begin when the last ones ended, so that it is always quiet."""
    end = quiet_until.strftime("%H:%M")
    start = datetime.fromtimestamp(quiet_until.timestamp() - 23 * 3600, UTC).strftime("%H:%M")
    kafka = [{"type": "kafka"}]
    documents: list[dict[str, Any]] = [
        {"name": "capped", "filter": 'event.event_name == "page_view"', "cap": {"count": 2, "window": "1h"}},
        {
            "name": "cooled",
            "filter": 'event.event_name == "page_view"',
            "cooldown": {"time": "1h", "key": "event.parameters.page"},
        },
        {"name": "held", "filter": 'event.event_name == "signup"', "quiet_hours": {"start": start, "end": end}},
        {
            "name": "abandoned",
            "filter": 'event.event_name == "add_to_cart"',
            "sequence": {
                "not_followed_by": 'event.event_name == "checkout"',
                "within": f"{WITHIN_S}s",
                "match": "parameters.cart",
            },
        },
        {
            "name": "bought",
            "filter": 'event.event_name == "add_to_cart"',
            "sequence": {"followed_by": 'event.event_name == "checkout"', "within": "1h", "match": "parameters.cart"},
        },
    ]
    path.write_text(yaml.safe_dump_all([document | {"version": 1, "actions": kafka} for document in documents]))
    return path


def produce(topics: Topics, name: str, users: list[str], number: int = 0, **parameters: Any) -> None:
    """One event of each user, now."""
    now_ms = time.time_ns() // 1_000_000
    bodies = [
        event(user, event_id=f"{user}-{name}-{number}", event_name=name, timestamp=now_ms, parameters=parameters)
        for user in users
    ]
    topics.produce([(body["user_id"].encode(), orjson.dumps(body)) for body in bodies])


def fired(actions: Reader) -> Counter[tuple[str, str]]:
    """Rule and event id of each action so far; the events' profiles are those of the user API."""
    found: Counter[tuple[str, str]] = Counter()
    for message in actions.messages:
        headers, body = dict(message.headers()), orjson.loads(message.value())
        assert body["userProfile"] == {"name": body["event"]["user_id"]}
        found[headers["rule"].decode(), body["event"]["event_id"]] += 1
    return found


def decided(user: str) -> set[tuple[str, str, str]]:
    """Decision, rule and event id of every decision that the log must have of a user."""
    views = [f"{user}-page_view-{number}" for number in range(5)]
    signup, cart, checkout = (f"{user}-{name}-0" for name in ("signup", "add_to_cart", "checkout"))
    found = [("fired", rule, view) for rule in ("capped", "cooled") for view in views[:2]]
    found += [("capped", "capped", view) for view in views[2:]]
    found += [("cooled_down", "cooled", view) for view in views[2:]]
    found += [("held", "held", signup), ("released", "held", signup)]
    found += [("begun", rule, cart) for rule in ("abandoned", "bought")]
    if user in BUYERS:
        found += [("followed", rule, checkout) for rule in ("abandoned", "bought")] + [("fired", "bought", checkout)]
    else:
        found += [("timed_out", "abandoned", cart), ("fired", "abandoned", cart)]
    return set(found)


def check_log(kafka: LocalKafka, topic: str, actions: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    """``why`` shows each decision at least once, in order, with the ids of the actions."""
    where = [f"--decisions_topic={topic}", "--json", f"--bootstrap_servers={kafka.bootstrap_servers}"]
    ids = defaultdict(set)
    for message in actions.messages:
        ids[message.key().decode()].add(dict(message.headers())["action-id"].decode())
    for user in (*LEAVERS[:3], *BUYERS[:3]):
        assert main(["why", f"--user={user}", *where]) == 0
        lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {(line["decision"], line["rule"], line["event_id"]) for line in lines} == decided(user)
        assert {line["action_id"] for line in lines if line["decision"] in ("fired", "released")} == ids[user]
        order = [(line["decision"], line["rule"]) for line in lines]
        assert order.index(("held", "held")) < order.index(("released", "held"))
        assert order.index(("begun", "bought")) < order.index(("fired", "bought" if user in BUYERS else "abandoned"))


@dataclasses.dataclass
class Run:
    """A job with its topics and readers."""

    topics: Topics
    decisions: str
    actions: Reader
    inspections: Reader
    job_id: str


@contextlib.contextmanager
def run(kafka: LocalKafka, flink: FlinkCluster, rules: Path, api: str, user_shards: int) -> Iterator[Run]:
    topics = Topics(kafka)
    decisions = f"decisions-{topics.tag}"
    kafka.create_topic(decisions, 2)
    with (
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            rules,
            f"--user_api_url={api}",
            *PATIENT,
            f"--control_topic={topics.control}",
            f"--decisions_topic={decisions}",
            f"--user_shards={user_shards}",
            "--parallelism=1",
            "--state_ttl_seconds=2",
            "--watermark_out_of_orderness_ms=500",
            "--watermark_idleness_ms=2000",
            "--allowed_lateness_seconds=1",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=1000",
        ) as job_id,
    ):
        yield Run(topics, decisions, actions, inspections, job_id)


def test_caps_carts_and_quiet_hours_outlive_users_and_task_managers(
    kafka: LocalKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two jobs, one with users in shards and one with a key for each user, lose the same TaskManager."""
    users = {user: {"profile": {"name": user}, "visit": None, "history": []} for user in USERS}
    with FlinkCluster(task_managers=1, slots=2) as flink, serve_users(users) as api, contextlib.ExitStack() as stack:
        # A whole minute, and long enough away for a slow machine to start the jobs and to hold what is to be held.
        quiet_until = datetime.fromtimestamp((time.time() + 150) // 60 * 60, UTC)
        path = rules(tmp_path / "rules.yaml", quiet_until)
        runs = [stack.enter_context(run(kafka, flink, path, api, user_shards)) for user_shards in (16, 0)]
        rest = FlinkRest(flink.rest_url)
        for job in runs:
            for number in range(3):
                produce(job.topics, "page_view", USERS, number, page=number % 2)
            produce(job.topics, "signup", USERS)
            produce(job.topics, "add_to_cart", USERS, cart=1)
        for job in runs:
            job.actions.until(len(USERS) * 4, 60)
            rule_state = inspect(job.topics, job.inspections, USERS[:1])[USERS[0]]["ruleState"]
            assert [sequence["rule"] for sequence in rule_state["sequences"]] == ["abandoned", "bought"]
            assert [event["rule"] for event in rule_state["held"]] == ["held"]
        for job in runs:
            wait_for_checkpoint(rest, job.job_id, rest.checkpoints(job.job_id)["counts"]["completed"] + 2, 60)

        since = [running_since(rest, job.job_id) for job in runs]
        flink.kill_task_manager(0)
        # While nothing runs: those who buy in time must not be told that they left their cart.
        for job in runs:
            produce(job.topics, "checkout", BUYERS, cart=1)
            produce(job.topics, "checkout", LEAVERS, cart=2)
        time.sleep(WITHIN_S + 2)  # the time of the sequences passes while the jobs are down
        flink.start_task_manager()
        for job, restarted in zip(runs, since, strict=True):
            wait_for_recovery(rest, job.job_id, restarted, 90)
            produce(job.topics, "page_view", USERS, 3, page=0)

        expected = Counter(
            {
                **{("capped", f"{user}-page_view-{number}"): 1 for user in USERS for number in (0, 1)},
                **{("cooled", f"{user}-page_view-{number}"): 1 for user in USERS for number in (0, 1)},
                **{("held", f"{user}-signup-0"): 1 for user in USERS},
                **{("abandoned", f"{user}-add_to_cart-0"): 1 for user in LEAVERS},
                **{("bought", f"{user}-checkout-0"): 1 for user in BUYERS},
            }
        )
        for job in runs:
            job.actions.until(expected.total(), 150)
            job.actions.settle()
            assert fired(job.actions) == expected
            # An action becomes visible after it was decided, never before.
            went_out = [
                message.timestamp()[1] for message in job.actions.messages if dict(message.headers())["rule"] == b"held"
            ]
            assert min(went_out) >= quiet_until.timestamp() * 1000
            produce(job.topics, "page_view", USERS, 4, page=1)
        for job in runs:
            job.actions.settle()
            assert fired(job.actions) == expected
            check_log(kafka, job.decisions, job.actions, capsys)
