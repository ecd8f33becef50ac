"""``event-trigger suppress``, ``unsuppress`` and ``suppressed``: from which groups a user gets nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from pipeline.cli.parameters import INSPECTIONS_TOPIC, Brokers, Name, Number, Time, Topic, check_user, check_wait
from pipeline.console import did_you_mean, json_line, out, warn
from pipeline.errors import OptionError
from pipeline.job.user_inspection import inspect_user, moment
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.kafka.topics import send_control_record
from pipeline.timestamps import read_time, shown_time
from transforms.domain.base import exact_json
from transforms.domain.base.names import NAME_ALLOWED
from transforms.domain.rules.groups import EVERYTHING, groups_of
from transforms.domain.rules.sets import RuleSet
from transforms.domain.rules.suppressions import LAST_MS, is_group, suppress_record, unsuppress_record


def suppress(
    user_id: str,
    /,
    *,
    group: Name,
    control_topic: Topic,
    until: Time | None = None,
    rules_topic: Topic | None = None,
    brokers: Brokers = Brokers(),
) -> None:
    """Send a user nothing of a group of rules, or of any rule.

    It holds for actions that wait, too. `event-trigger suppressed` shows whether the job has it. A group that no live
    rule names yet is written, with a warning if --rules_topic says where the live rules are.

    0: written; 2: an argument or topic cannot be used.

    Args:
        user_id: user_id.
        group: name of the group; * for all rules, also those without a group.
        control_topic: the pipeline's control topic.
        until: when it ends, as 2024-01-31T08:00:00Z; default: never.
        rules_topic: the pipeline's topic of rule sets: warns of a group that the live set does not have.
    """
    until_ms = read_time("until", until)
    now_ms = round(time.time() * 1000)
    if until_ms is not None and not now_ms < until_ms <= LAST_MS:
        raise OptionError(f"--until is {until!r}, allowed: a time after now, {shown_time(now_ms)}")
    end = "for good" if until_ms is None else f"until {shown_time(until_ms)}"
    _send(user_id, group, control_topic, brokers, suppress_record(user_id, group, until_ms), f"gets nothing, {end}")
    if rules_topic is not None and group != EVERYTHING:
        _check_group(group, RulesTopic(rules_topic, brokers.config()).read().live, rules_topic)


def unsuppress(user_id: str, /, *, group: Name, control_topic: Topic, brokers: Brokers = Brokers()) -> None:
    """Send a user what `event-trigger suppress` kept from them with the same group.

    0: written; 2: an argument or topic cannot be used.

    Args:
        user_id: user_id.
        group: as it was suppressed: name of the group, or *.
        control_topic: the pipeline's control topic.
    """
    _send(user_id, group, control_topic, brokers, unsuppress_record(user_id, group), "is sent to again")


def suppressed(
    user_id: str,
    /,
    *,
    control_topic: Topic,
    inspections_topic: Topic = INSPECTIONS_TOPIC,
    brokers: Brokers = Brokers(),
    timeout_seconds: Number = 30.0,
    json: bool = False,
) -> int:
    """Show from which groups a user gets nothing, as the running job has it.

    0: there are some; 1: there are none, or the job does not answer; 2: an option or topic cannot be used.

    Args:
        user_id: user_id.
        control_topic: the pipeline's, which is how a job is asked.
        inspections_topic: as the pipeline's.
        timeout_seconds: how long to wait.
        json: print a list of {group, until}, until in ms or null.
    """
    check_wait(timeout_seconds)
    _check_user(user_id)
    state = inspect_user(brokers.config(), control_topic, inspections_topic, user_id, timeout_seconds)
    entries = entries_of(state)
    if json:
        sys.stdout.write(json_line(exact_json.dumps(entries).decode()) + "\n")
    elif not entries:
        out(f"{user_id}: nothing is suppressed")
    else:
        now_ms = round(time.time() * 1000)
        for entry in entries:
            until_ms = entry["until"]
            out(f"{entry['group']}  {'for good' if until_ms is None else f'until {moment(until_ms, now_ms)}'}")
    return 0 if entries else 1


def entries_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The suppressions in a user's state."""
    if state.get("ruleState") is None:
        raise OptionError("the user's state is too large to be shown: its rule state was left out")
    return list(state["ruleState"].get("suppressed", []))


def _send(user_id: str, group: str, topic: str, brokers: Brokers, record: bytes, effect: str) -> None:
    _check_user(user_id)
    if not is_group(group):
        raise OptionError(f"--group is {group!r}, allowed: {NAME_ALLOWED}, or * for all rules")
    send_control_record(brokers.config(), topic, user_id.encode(), record)
    out(f"{user_id} {effect}: {record.decode()} on {topic}")


def _check_group(group: str, live: RuleSet | None, topic: str) -> None:
    """Warn of a group that no live rule names: it may be a slip, or come with the next set."""
    if live is None:
        warn(f"topic {topic!r} has no rule set, so nobody knows whether there is a group {group!r}")
        return
    groups = groups_of(live.rules)
    if group not in groups:
        known = ", ".join(sorted(groups)) or "none"
        hint = did_you_mean(group, groups)
        warn(f"no rule of the live set {live.number} is in group {group!r}; its groups: {known}{hint and '; '}{hint}")


def _check_user(user_id: str) -> None:
    allowed = "UTF-8, not empty"
    check_user(user_id, allowed)
    if not user_id:
        raise OptionError(f"USER is {user_id!r}, allowed: {allowed}")
