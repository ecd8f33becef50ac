"""The outputs of a step as Beam elements: which record leaves by which tag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from apache_beam.pvalue import TaggedOutput

from transforms.domain.base.user_hash import UserHash
from transforms.domain.events.record import encode_produced
from transforms.domain.rules import actions
from transforms.domain.rules.cloudevents import headers_of
from transforms.domain.rules.model import DebugAction, KafkaAction
from transforms.domain.rules.sets import Acknowledgement
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import switch_record
from transforms.runtime.settings import HandleSettings

DEBUG: Final = "debug"
ACTIONS: Final = "actions"
RECORDS: Final = "records"


def outputs_of(
    result: StepResult,
    settings: HandleSettings,
    state: ShardState,
    shard: int | None,
    now_ms: int,
    user_hash: UserHash,
) -> Iterator[TaggedOutput]:
    """Everything that leaves the stage with a step: actions first, then records of the other topics.

    Args:
        result: the step's result.
        settings: topics and the source of actions.
        state: the shard's state after the step.
        shard: the shard's number, None if it is not known or each user is a key.
        now_ms: processing time.
        user_hash: of users in audit records, if the job has a key.
    """
    for fired in result.actions:
        if isinstance(fired.action, DebugAction):
            yield TaggedOutput(DEBUG, fired.body)
        elif isinstance(fired.action, KafkaAction):
            headers = headers_of(fired, settings.cloudevents_source)
            record = encode_produced(fired.action.topic, fired.user_id.encode(), fired.body, headers)
            yield TaggedOutput(ACTIONS, record)
    if settings.writes_actions:
        for fired in result.decided_actions:
            yield _record(actions.FILE, fired.user_id.encode(), actions.action_line(fired, now_ms))
    for decision in result.decisions:
        yield _record(settings.decisions_topic, decision.user_id.encode(), decision.to_json())
    for letter in result.dead_letters:
        yield _record(settings.dead_letter_topic, letter.key, letter.to_json())
    for erasure in result.erasures:
        keyed = None if settings.user_hash_key is None else user_hash(erasure.user_id)
        yield _record(settings.audit_topic, (keyed or erasure.user_sha256).encode(), erasure.to_json(keyed))
    for inspection in result.inspections:
        yield _record(settings.inspection_topic, inspection.user_id.encode(), inspection.body)
    for number in result.applied_rule_sets:
        acknowledgement = Acknowledgement(number, shard or 0, settings.user_shards, now_ms)
        yield _record(settings.audit_topic, acknowledgement.key, acknowledgement.to_json())
    # With ``user_shards=0`` no control record reaches every key.
    if result.gone_destinations and settings.control_topic is not None and settings.user_shards:
        for name in dict.fromkeys(result.gone_destinations):
            if name not in state.disabled:
                yield _record(settings.control_topic, name.encode(), switch_record(name, False))


def _record(topic: str | None, key: bytes | None, value: bytes) -> TaggedOutput:
    return TaggedOutput(RECORDS, encode_produced(topic, key, value, []))
