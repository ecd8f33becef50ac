"""Golden savepoints: state that an earlier release wrote, so that a test can show that today's code reads it.

``python -m tests.integration.golden NAME`` runs the job on a Kafka and Flink of its own and writes to ``golden/NAME``:

- ``savepoint/``: users with and without profile, visit and history, one who was forgotten, events of some who still
  wait for the user API; in snapshots, the journal entries after them, and journals that have no snapshot yet;
- ``options.json``: the job's flags. The topics are called after NAME: their names and offsets are in the savepoint;
- ``input.json.gz``: what the topics and the user API held, and records to go on with. Stored, not made anew from a
  seed: a generator that changes must not make old state unprovable.

Take one, under a new name, before the stored form changes. An old one can never be taken again.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from pipeline.launch.options import parse
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from tests.builders import oracle_rules, random_stream, record, rule_documents, user_api_of
from tests.integration.jobs import Topics, control_record, inspect, reading, submit
from tests.integration.user_api import Gate, serve_users
from tests.oracle import Oracle, SeenAction, action_differences, state_differences

FOLDER = Path(__file__).parent / "golden"

Records = Sequence[tuple[bytes, bytes]]

# Savepoints of releases that did not store when a visit ended.
_WITHOUT_ENDS_OF_VISITS = ("journal-1",)

_USERS = 40
_BEFORE, _LAST, _AFTER = 600, 50, 200
_SLICE = 25
_OPTIONS = (
    "--user_shards=4",
    "--max_parallelism=128",
    "--history_size=10",
    "--history_fields=parameters",
    "--compact_bytes=20000",  # some shards get a snapshot and entries after it, others have only entries yet
    # Users carry the time they were last seen: they must not be idle for too long before the test looks at them.
    "--state_ttl_seconds=315360000",
    "--enrichment_deadline_seconds=600",
    "--checkpointing_interval_ms=1000",
)


@dataclass(frozen=True)
class Golden:
    """A golden savepoint's input: ``before`` is in it, ``after`` comes once it is restored.

    ``api`` is what the user API knows. Those ``held`` got no answer before the savepoint; those ``forgotten`` were so
    after all of ``before``.
    """

    name: str
    options: Sequence[str]
    api: dict[str, Any]
    users: Sequence[str]
    held: Sequence[str]
    forgotten: Sequence[str]
    before: Records
    after: Records

    @classmethod
    def new(cls, name: str) -> Golden:
        """A stream with late events, ties and repeats; most histories are longer than what is kept.

        Some users come last: little has happened since they were loaded, and that they were is in no snapshot yet.
        """
        users = [f"user-{number:04d}" for number in range(_USERS)]
        records = list(random_stream(seed=11, users=_USERS, events=_BEFORE + _AFTER, poison=False))
        last = {user.encode() for user in users[1:9]}
        before = [record for record in records[: _BEFORE - _LAST] if record[0] not in last] + records[
            _BEFORE - _LAST : _BEFORE
        ]
        return cls(name, _OPTIONS, user_api_of(users), users, users[-6:], users[:1], before, records[_BEFORE:])

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """The input of the savepoint in a folder."""
        stored = orjson.loads(gzip.decompress((folder / "input.json.gz").read_bytes()))
        for name in ("before", "after"):
            stored[name] = [(key.encode(), value.encode()) for key, value in stored[name]]
        return cls(folder.name, orjson.loads((folder / "options.json").read_bytes()), **stored)

    def save(self, folder: Path) -> None:
        """Write what ``load`` reads."""
        stored: dict[str, Any] = {name: getattr(self, name) for name in ("api", "users", "held", "forgotten")}
        for name in ("before", "after"):
            stored[name] = [(key.decode(), value.decode()) for key, value in getattr(self, name)]
        (folder / "input.json.gz").write_bytes(gzip.compress(orjson.dumps(stored), mtime=0))
        (folder / "options.json").write_bytes(orjson.dumps(self.options, option=orjson.OPT_INDENT_2) + b"\n")

    def control(self) -> Records:
        """Records of the control topic before the savepoint: forget some users, then inspect all."""
        forget = [control_record("forget", user) for user in self.forgotten]
        return forget + [control_record("inspect", user) for user in self.users]

    def oracle(self) -> Oracle:
        """An oracle without any event."""
        settings = parse(self.options)
        return Oracle(
            oracle_rules(),
            self.api,
            history_size=settings.history_size,
            history_fields=settings.history_fields,
            answers_at_once=False,
        )

    def feed(self, oracle: Oracle, records: Records) -> None:
        """Records that come while calls for held users wait."""
        for key, value in records:
            oracle.feed(key, value, None, record(value, key).timestamp_ms)
            if key.decode() not in self.held:
                oracle.answer(key.decode())

    def restored_oracle(self) -> Oracle:
        """An oracle that was fed every record; its actions are those that come after the restore."""
        oracle = self.oracle()
        oracle.visits_have_ends = self.name not in _WITHOUT_ENDS_OF_VISITS
        self.feed(oracle, self.before)
        oracle.visits_have_ends = True
        for user in self.forgotten:
            oracle.forget(user)
        oracle.actions.clear()
        for user in self.held:
            oracle.answer(user)
        self.feed(oracle, self.after)
        return oracle


def write_rules(path: Path) -> Path:
    """The sample rules with Kafka actions as a file."""
    path.write_text(yaml.safe_dump_all(rule_documents("kafka")))
    return path


def take(golden: Golden, folder: Path) -> None:
    """Run a job on a golden's input until all of it is in the state, and keep its savepoint in the folder."""
    oracle = golden.oracle()
    with (
        tempfile.TemporaryDirectory() as work_dir,
        LocalKafka() as kafka,
        LocalFlink() as flink,
        serve_users(golden.api, Gate(golden.held)) as api,
    ):
        topics = Topics(kafka, golden.name)
        job_id = submit(
            flink,
            topics,
            write_rules(Path(work_dir) / "rules.yaml"),
            *golden.options,
            f"--control_topic={topics.control}",
            f"--user_api_url={api}",
            "--user_api_timeout_seconds=600",  # a held call is no error, which would open the breaker for everybody
        )
        with reading(kafka, topics.actions) as actions, reading(kafka, topics.inspections) as inspections:
            # In slices, or each shard would get it all in one step: a snapshot and no entries after it.
            for first in range(0, len(golden.before), _SLICE):
                records = golden.before[first : first + _SLICE]
                golden.feed(oracle, records)
                topics.produce(records)
                actions.until(len(oracle.actions), 60)
            topics.wait_for_commits(len(golden.before), 60)
            seen = [SeenAction.of_kafka(message.value(), message.headers()) for message in actions.settle()]
            assert action_differences(oracle, seen) == []
            for user in golden.forgotten:
                oracle.forget(user)
            topics.produce(golden.control()[: len(golden.forgotten)], topics.control)
            assert state_differences(oracle, inspect(topics, inspections, golden.users)) == []
        savepoint = urlsplit(flink.rest.stop(job_id)).path
        folder.mkdir(parents=True)
        shutil.copytree(savepoint, folder / "savepoint")
    golden.save(folder)


def main() -> None:
    """Take a golden savepoint of the code as it is."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.golden", description=main.__doc__)
    parser.add_argument("name", help="of its folder and its topics, as journal-1")
    folder = FOLDER / parser.parse_args().name
    if folder.exists():
        parser.error(f"{folder} exists: state of another release, which cannot be taken again; choose a new name")
    take(Golden.new(folder.name), folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>8,} B  {path.relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
