"""Today's code restores the state that an earlier release wrote (``golden.py``) and goes on with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from tests.integration.golden import FOLDER, Golden, write_rules
from tests.integration.jobs import Topics, inspect, reading, running
from tests.integration.user_api import serve_users
from tests.oracle import SeenAction, action_differences, dead_letter_differences, state_differences

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.name) for folder in sorted(FOLDER.iterdir())])
def test_a_savepoint_of_an_earlier_release_is_restored(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path, folder: Path
) -> None:
    golden = Golden.load(folder)
    oracle = golden.restored_oracle()
    # A cluster other than its own, which may write where it reads.
    savepoint = shutil.copytree(folder / "savepoint", tmp_path / "savepoint")
    topics = Topics(kafka, golden.name)
    topics.produce(golden.before)
    topics.produce(golden.control(), topics.control)
    with (
        serve_users(golden.api) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.dead_letters) as dead_letters,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            write_rules(tmp_path / "rules.yaml"),
            *golden.options,
            f"--savepoint_path={savepoint}",
            f"--control_topic={topics.control}",
            f"--user_api_url={api}",
        ),
    ):
        topics.produce(golden.after)
        actions.until(len(oracle.actions), 60)
        seen = [SeenAction.of_kafka(message.value(), message.headers()) for message in actions.settle()]
        assert action_differences(oracle, seen) == []
        letters = [orjson.loads(message.value()) for message in dead_letters.settle(1)]
        assert dead_letter_differences(oracle, letters) == []
        assert state_differences(oracle, inspect(topics, inspections, golden.users)) == []
