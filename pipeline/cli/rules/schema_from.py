"""``event-trigger rules schema-from``: learns the schema of a team's events and profiles from a recording."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import orjson
from cyclopts import Parameter

from pipeline.cli.parameters import File
from pipeline.cli.rules.backtest_inputs import open_lines
from pipeline.cli.rules.file_problems import count_of
from pipeline.console import say, warn
from pipeline.errors import OptionError
from transforms.domain.base import exact_json
from transforms.domain.rules.schema_learning import LearnedSchema
from transforms.domain.simulation.recordings import records_of


def schema_from(
    recording: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, profiles: File | None = None
) -> int:
    """Learn a JSON Schema of your events and profiles, for --schema of check, test and publish; prints it.

    0: printed; 2: a file cannot be used, or has no event.

    Args:
        recording: JSON Lines (.gz too, - for standard input), as of `rules backtest`.
        profiles: JSON Lines {"user_id": …, "profile": {…}}, as of `rules backtest`.
    """
    learned, events, others = LearnedSchema(), 0, 0
    with open_lines(recording) as lines:
        for record in records_of(lines, recording, time.time_ns() // 1_000_000):
            fields = _object(record.value)
            if fields is None or not isinstance(fields.get("event_name"), str):
                others += 1
                continue
            learned.add_event(fields)
            events += 1
    users = 0
    if profiles is not None:
        with open_lines(str(profiles)) as lines:
            for number, line in enumerate(lines, 1):
                user = _object(line.removeprefix(b"\xef\xbb\xbf")) if line.strip() else {"profile": {}}
                profile = None if user is None else user.get("profile")
                if not isinstance(profile, dict):
                    raise OptionError(f"{profiles}:{number}: allowed is an object with user_id and profile, an object")
                learned.add_profile(profile)
                users += bool(line.strip())
    if others:
        warn(f"{recording}: {count_of(others, 'line')} with no event in it")
    if not events and not users:
        raise OptionError(f"{recording}: no event in it, allowed are JSON Lines of events")
    sys.stdout.write(orjson.dumps(learned.document(), option=orjson.OPT_INDENT_2).decode() + "\n")
    say(f"learned from {count_of(events, 'event')} and {count_of(users, 'profile')}")
    return 0


def _object(line: bytes | None) -> dict[str, object] | None:
    """A JSON object, None for anything else."""
    try:
        value = exact_json.loads(line or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
