"""Quix Streams: state in its RocksDB store with a changelog topic, committed every 60 s.

The history is a list under one key; a ring of a key for each row took as much CPU an event, more for a new user. Quix
expires a key by event time after its last write; who is idle in processing time is found so when they come back.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from quixstreams import Application, State
from user_actions import HISTORY, TTL_S, UserApi, action, advance_visit, allows, row_of


class UserActions:
    """The stateful function."""

    def __init__(self, api_url: str) -> None:
        self._api = UserApi(api_url)

    def __call__(self, event: dict[str, Any], state: State) -> bytes | None:
        now_s = time.time()
        user = state.get("user")
        if user is None or now_s - user["seen_s"] > TTL_S:
            user = self._fetch(event["user_id"], state)
        profile, rows = state.get("profile"), state.get("rows")
        advance_visit(user["visit"], event)
        body = action(event, profile, user["visit"], rows) if allows(event, profile) else None
        rows.append(row_of(event))
        state.set("rows", rows[-HISTORY:])
        state.set("user", {"visit": user["visit"], "seen_s": now_s})
        return body

    def _fetch(self, user_id: str, state: State) -> dict[str, Any]:
        fetched = self._api.fetch(user_id)
        state.set("profile", fetched.profile)
        state.set("rows", fetched.rows)
        return {"visit": fetched.visit}


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "events", "actions", "group", "user_api", "state_dir", "guarantee", "instance"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--commit_s", type=float, required=True)
    given = parser.parse_args()
    app = Application(
        broker_address=given.bootstrap,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        commit_interval=given.commit_s,
        processing_guarantee=given.guarantee,
        state_dir=Path(given.state_dir),
        # A member that comes back under its name takes its partitions over at once, as in a StatefulSet.
        consumer_extra_config={"group.instance.id": given.instance, "fetch.wait.max.ms": 10},
        producer_extra_config={"linger.ms": 1},
        loglevel="DEBUG",  # says how long a commit took, once a minute
    )
    events = app.topic(given.events, key_deserializer="str", value_deserializer="json")
    actions = app.topic(given.actions, key_serializer="str", value_serializer="bytes")
    stream = app.dataframe(events).apply(UserActions(given.user_api), stateful=True)
    stream.filter(lambda body: body is not None).to_topic(actions)
    app.run()


if __name__ == "__main__":
    main()
