"""docs/user-state.md on real Kafka and Flink: who waits, policies, the TTL, erasure and refreshes."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import yaml
import zstandard

from runners.flink.local.broker import LocalKafka
from tests.builders import (
    NOW_MS,
    PAIRS,
    Pair,
    event,
    oracle_rules,
    random_stream,
    record,
    rule_documents,
    user_api_of,
)
from tests.flink_cluster import FlinkCluster, running_since, wait_for_recovery
from tests.integration.jobs import PATIENT, Reader, Topics, control_record, inspect, reading, running
from tests.integration.user_api import Gate, serve_users
from tests.oracle import UNAVAILABLE, Oracle, SeenAction, action_differences, state_differences
from tests.waiting import again_and_again, eventually

pytestmark = pytest.mark.stack

EVERY_EVENT: tuple[Pair, ...] = (("every_event", "true", lambda event, user, visit, history: True),)
NO_EVENT: tuple[Pair, ...] = (("no_event", "false", lambda event, user, visit, history: False),)

OPTIONS = ("--parallelism=2", "--checkpointing_interval_ms=1000")

Record = tuple[bytes, bytes]


def users(count: int) -> tuple[str, ...]:
    """The ids of the users of ``random_stream``."""
    return tuple(f"user-{number:04d}" for number in range(count))


def keyed(body: dict[str, Any]) -> Record:
    return body["user_id"].encode(), orjson.dumps(body)


def write_rules(folder: Path, policies: Sequence[str] = ("wait",), pairs: Sequence[Pair] = PAIRS) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump_all(rule_documents("kafka", policies, pairs)))
    return path


def feed(oracle: Oracle, records: Sequence[Record]) -> None:
    for key, value in records:
        oracle.feed(key, value, None, record(value, key).timestamp_ms)


def answer_all(oracle: Oracle) -> None:
    for user in list(oracle.asked):
        oracle.answer(user)


def seen(reader: Reader) -> list[SeenAction]:
    return [SeenAction.of_kafka(message.value(), message.headers()) for message in reader.messages]


def agree(oracle: Oracle, topics: Topics, inspections: Reader, names: Sequence[str], deadline_s: float = 60) -> None:
    """Wait until the states of all users are the oracle's. Fails with the differences."""
    give_up = time.monotonic() + deadline_s
    while (problems := state_differences(oracle, inspect(topics, inspections, names, 60))) != []:
        assert time.monotonic() < give_up, problems


# Waiting


def test_users_who_wait_outlive_killed_task_managers(kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path) -> None:
    """One is killed while all users wait, the next while answers arrive: each action comes once, in order."""
    names = users(3300)
    records = list(random_stream(seed=5, users=len(names), events=11_500, poison=False))
    before, behind = records[:9_000], records[9_000:]
    oracle = Oracle(oracle_rules(), user_api_of(names), answers_at_once=False)
    topics, gate = Topics(kafka), Gate(names)
    with (
        serve_users(user_api_of(names), gate) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            write_rules(tmp_path),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--workers_per_task_manager=1",
            *PATIENT,
            *OPTIONS,
        ) as job_id,
    ):

        def all_wait() -> None:
            """Wait until every produced event waits in the state and in a checkpoint: Kafka does not send it again."""
            topics.wait_for_commits(sum(map(len, oracle.waiting.values())), 120)
            # An unaligned checkpoint may hold events on their way to the state.
            agree(oracle, topics, inspections, names)

        topics.produce(before)
        feed(oracle, before)
        assert len(oracle.waiting) >= 3000
        all_wait()

        replace_task_manager(flink, job_id)
        topics.produce(behind)
        feed(oracle, behind)
        all_wait()

        calls = 3 * len(oracle.waiting)
        gate.open(calls // 3)
        actions.until(1, 120)  # a checkpoint holds a part of the answers
        gate.open(calls // 3)
        eventually(lambda: gate.passed > calls // 2, "half of the answers are given", 120)
        replace_task_manager(flink, job_id)
        gate.open()

        answer_all(oracle)
        actions.until(len(oracle.actions), 180)
        actions.settle()
        assert action_differences(oracle, seen(actions)) == []
        agree(oracle, topics, inspections, names)


def replace_task_manager(flink: FlinkCluster, job_id: str) -> None:
    """``kill -9`` the only TaskManager, start another, wait until the job has recovered there."""
    since = running_since(flink.rest, job_id)
    flink.kill_task_manager()
    flink.start_task_manager()
    wait_for_recovery(flink.rest, job_id, since, 120)


def test_where_no_rule_waits_events_run_at_once_and_the_answer_is_folded_in(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path
) -> None:
    policies = ("run", "skip")
    names = users(60)
    records = list(random_stream(seed=9, users=len(names), events=900, poison=False))
    first, late, second = records[:400], ahead_of_time(names), records[400:]
    api_knows = user_api_of(names)
    for user, (_, value) in zip(names, late, strict=True):
        # Of the user API's rows one is of an event at hand, one of an event that the stream brings later.
        rows = [*[orjson.loads(record) for key, record in first if key == user.encode()][:1], orjson.loads(value)]
        if user in api_knows:
            api_knows[user]["history"] += [
                {name: row[name] for name in ("event_id", "event_name", "timestamp")} for row in rows
            ]
    oracle = Oracle(oracle_rules(policies), api_knows, answers_at_once=False)
    topics, gate = Topics(kafka), Gate(names)
    with (
        serve_users(api_knows, gate) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            write_rules(tmp_path, policies),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            *PATIENT,
            *OPTIONS,
        ),
    ):
        topics.produce(first)
        feed(oracle, first)
        assert oracle.asked == set(names)
        actions.until(len(oracle.actions), 60)
        actions.settle(1)
        assert {action.body["userProfile"].get("enrichment") for action in seen(actions)} == {"pending"}
        assert action_differences(oracle, seen(actions)) == []

        gate.open()
        answer_all(oracle)
        agree(oracle, topics, inspections, names)

        topics.produce([*late, *second])
        feed(oracle, [*late, *second])
        assert {action.body["userProfile"].get("country") for action in oracle.actions} == {"US", "DE", None}
        actions.until(len(oracle.actions), 60)
        actions.settle(1)
        assert action_differences(oracle, seen(actions)) == []
        agree(oracle, topics, inspections, names)


def ahead_of_time(names: Sequence[str]) -> list[Record]:
    """For each user an event older than any other of the stream."""
    return [keyed(event(user, event_id=f"{user}-late", timestamp=NOW_MS - 60_000, triggerable=True)) for user in names]


# TTL


def test_users_whose_ttl_has_ended_leave_nothing(kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path) -> None:
    """One shard is empty after it, so its journal is cleared; other shards keep a user, so theirs are rewritten."""
    compact_bytes = 20_000
    names, living = users(2000), "evergreen"
    visits = [keyed(event(user)) for user in names]
    topics = Topics(kafka)
    with (
        serve_users(rich_users(names)) as api,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            write_rules(tmp_path, pairs=NO_EVENT),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--state_ttl_seconds=5",
            "--user_shards=4",
            f"--compact_bytes={compact_bytes}",
            *OPTIONS,
        ) as job_id,
        again_and_again(lambda: topics.produce([keyed(event(living))]), lambda: 0.2),
    ):

        def count(*parts: str) -> int:
            """The number of users that have any of these."""
            states = inspect(topics, inspections, names).values()
            return sum(any(state[part] for part in parts) for state in states)

        eventually(lambda: inspect(topics, inspections, [living])[living]["found"], "the first user is known")
        without = savepoint_bytes(flink, job_id)
        with again_and_again(lambda: topics.produce(visits), lambda: 1):  # the same events: duplicates are access, too
            eventually(lambda: count("userProfile") == len(names), "everybody has a profile", 120)
            loaded = savepoint_bytes(flink, job_id)
        eventually(lambda: count("found", "parked") == 0, "everybody is forgotten", 120)
        after_ttl = savepoint_bytes(flink, job_id)
        assert inspect(topics, inspections, [living])[living]["found"]
        checkpoint = flink.rest.checkpoints(job_id)["latest"]["completed"]

    print(f"savepoint, bytes: {without:,} before, {loaded:,} with 2,000 users, {after_ttl:,} after their TTL")
    print(f"checkpoint after it, bytes: {checkpoint['state_size']:,} of state")
    assert loaded > 1_000_000  # not all 2,000 profiles: a slow machine forgets some before the savepoint
    assert after_ttl < without + 3 * compact_bytes


def rich_users(names: Sequence[str]) -> dict[str, Any]:
    """Users with a profile that does not compress well and 20 events of history."""
    chance = random.Random(1)
    return {
        user: {
            "profile": {"note": chance.randbytes(1000).hex()},
            "visit": None,
            "history": [
                {"event_id": f"{user}-past{n}", "event_name": "page_view", "timestamp": NOW_MS - 1000 + n}
                for n in range(20)
            ],
        }
        for user in names
    }


def savepoint(flink: FlinkCluster, job_id: str) -> Path:
    return Path(urlsplit(flink.rest.savepoint(job_id)).path)


def savepoint_bytes(flink: FlinkCluster, job_id: str) -> int:
    """The size of all state. A checkpoint also holds deleted entries that RocksDB has not yet compacted."""
    return sum(path.stat().st_size for path in savepoint(flink, job_id).rglob("*") if path.is_file())


# Erasure


def test_a_forgotten_user_is_in_no_savepoint_and_starts_anew(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path
) -> None:
    """Forget two of three users: one with profile, history and a refresh in flight, one that waits for its profile."""
    loaded, waiting, bystander = "loaded-4f1c", "waiting-9b27", "bystander-e60d"
    known = {user: profile_and_past(user, "old") for user in (loaded, waiting, bystander)}
    oracle = Oracle(oracle_rules(pairs=EVERY_EVENT), known, answers_at_once=False)
    topics, gate = Topics(kafka), Gate([waiting])
    with (
        serve_users(known, gate) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        reading(kafka, topics.audit) as audit,
        running(
            flink,
            topics,
            write_rules(tmp_path, pairs=EVERY_EVENT),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--profile_max_age_seconds=1",
            *PATIENT,
            *OPTIONS,
            "--parallelism=1",
            "--user_shards=1",
        ) as job_id,
    ):

        def send(user: str, note: str) -> None:
            sent = keyed(event(user, parameters={"note": note}))
            topics.produce([sent])
            feed(oracle, [sent])

        def check() -> None:
            actions.until(len(oracle.actions), 60)
            actions.settle(1)
            assert action_differences(oracle, seen(actions)) == []
            agree(oracle, topics, inspections, list(known))

        for user in known:
            send(user, f"first-of-{user}")
        send(waiting, "behind-it-3a58")
        oracle.answer(loaded)
        oracle.answer(bystander)
        check()
        gate.held.add(loaded)
        while gate.calls.count(f"{loaded}/profile") < 2:
            send(loaded, "until-a-refresh-is-asked-for")
            actions.until(len(oracle.actions), 60)
        assert gate.passed == 0
        check()

        traces = [b"loaded-4f1c", b"waiting-9b27", b"old-profile-of-loaded", b"past-of-loaded", b"behind-it-3a58"]
        contents = uncompressed(savepoint(flink, job_id))
        assert [trace for trace in (*traces, b"old-profile-of-bystander") if trace not in contents] == []

        # From here on new questions get new answers; the old ones are still held.
        gate.held.clear()
        known |= {user: profile_and_past(user, "new") for user in (loaded, waiting)}
        requested_ms = time.time_ns() // 1_000_000
        topics.produce([control_record("forget", user) for user in (loaded, waiting)], topics.control)
        audit.until(2, 60)
        for offset, (user, message) in enumerate(zip((loaded, waiting), audit.messages, strict=True)):
            sha256 = hashlib.sha256(user.encode()).hexdigest()
            decision = orjson.loads(message.value())
            assert message.key() == sha256.encode()
            assert requested_ms <= decision.pop("time") <= time.time_ns() // 1_000_000
            assert decision == {
                "audit": "forget",
                "user_sha256": sha256,
                "found": True,
                "topic": topics.control,
                "partition": 0,
                "offset": len(inspections.messages) + offset,
            }
            oracle.forget(user)
        check()
        contents = uncompressed(savepoint(flink, job_id))
        assert [trace for trace in traces if trace in contents] == []
        assert b"old-profile-of-bystander" in contents

        for user in (loaded, waiting):
            send(user, "a new user")
            oracle.answer(user)
        check()
        assert gate.passed == 0
        gate.open()
        eventually(lambda: gate.passed == 6, "both old questions are answered")
        for user in known:
            send(user, "after the old answers")
        check()


def profile_and_past(user: str, age: str) -> dict[str, Any]:
    """The user API's answer; long enough for the journal to compress it."""
    kind = user.partition("-")[0]
    rows = [{"event_id": f"{age}-past-of-{kind}-{n}", "event_name": "click", "timestamp": NOW_MS - n} for n in (9, 8)]
    return {"profile": {"note": f"{age}-profile-of-{kind}", "text": "long " * 99}, "visit": None, "history": rows}


def uncompressed(folder: Path) -> bytes:
    """Every byte of a folder's files, and all that zstd frames among them hold."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found.append(content)
        start = content.find(zstandard.FRAME_HEADER)
        while start >= 0:
            with contextlib.suppress(zstandard.ZstdError):
                found.append(zstandard.ZstdDecompressor().decompressobj().decompress(content[start:]))
            start = content.find(zstandard.FRAME_HEADER, start + 1)
    return b"\n".join(found)


# Refreshing


def test_a_profile_is_refreshed_and_outlives_a_user_api_that_fails(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path
) -> None:
    user = "user-1"
    known: dict[str, Any] = {user: {"profile": {"plan": "free"}, "visit": None, "history": []}}
    topics, gate = Topics(kafka), Gate()
    with (
        serve_users(known, gate) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            write_rules(tmp_path, pairs=EVERY_EVENT),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--profile_max_age_seconds=1",
            "--enrichment_retry_seconds=0.1",
            *OPTIONS,
        ),
    ):

        def next_plan() -> str:
            topics.produce([keyed(event(user))])
            return str(orjson.loads(actions.until(len(actions.messages) + 1, 60)[-1].value())["userProfile"]["plan"])

        assert next_plan() == "free"
        known[user] = {**known[user], "profile": {"plan": "pro"}}
        eventually(lambda: next_plan() == "pro", "the new profile is used")

        known[user] = UNAVAILABLE
        calls_before = len(gate.calls)
        # A user is asked for again when the question before has failed.
        while gate.calls[calls_before:].count(f"{user}/profile") < 3:
            assert next_plan() == "pro"
        state = inspect(topics, inspections, [user])[user]
        assert (state["enrichment"], state["userProfile"]) == ("fetched", {"plan": "pro"})
