"""Events, control records and answers of the user API that somebody has edited: letters, never an exception."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, load_rules
from tests.hostile.edits import HOSTILE_TEXTS, edited_bytes, edited_json
from tests.hostile.test_rule_sets import RICH, seeds
from transforms.adapters.http.calls import CallError
from transforms.adapters.user_api.answers import fetched_user
from transforms.domain.base.user_hash import UserHash
from transforms.domain.events.micro_batch import CONTROL, EVENTS, VERSION, MicroBatch, split_by_shard
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.fetched_user import BAD_ANSWER, FetchedUser, unavailable
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.runtime.outputs import outputs_of
from transforms.runtime.settings import HandleSettings

EVENT = {
    "event_id": "e1",
    "user_id": "u",
    "event_name": "buy",
    "timestamp": NOW_MS,
    "triggerable": True,
    "is_first_in_visit": True,
    "is_last_in_visit": False,
    "parameters": {"cart_id": "c1", "price": 12.5, "items": [1, {"sku": "a"}]},
    "platform": "web",
}
REDRIVE = {
    "redrive": "u",
    "action": {
        "action_id": "0" * 32,
        "rule": "rich",
        "rule_version": 1,
        "action": "webhook",
        "destination": "crm",
        "user_id": "u",
        "event_id": "e1",
        "body": "e30=",
        "decided_ms": NOW_MS,
        "attempts": 3,
        "status": 500,
    },
}
CONTROLS = (
    *({"forget": "u"}, {"inspect": "u"}, {"destination": "crm", "enabled": False}, REDRIVE),
    {"suppress": "u", "group": "mail", "until": NOW_MS + 1000},
    {"unsuppress": "u", "group": "*"},
)
ANSWERS = {
    "profile": {"country": "US", "timezone": "Europe/Berlin", "address": {"city": "x"}, "n": [1, 2.5, None]},
    "visit": {"visit_id": "v", "start_time": NOW_MS - 60_000, "page_count": 3, "is_first_visit": True},
    "history": [
        {"event_id": f"h{n}", "event_name": "view", "timestamp": NOW_MS - 1000 * n, "platform": "web", "parameters": {}}
        for n in range(1, 4)
    ],
}
RECORD_TIMES = (
    NOW_MS,
    NOW_MS,
    NOW_MS,
    -1,
    0,
    -(2**63),
    2**63 - 1,
    NOW_MS * 1000,
    NOW_MS * 1_000_000,
    253_402_300_800_000,
)
FAILING = """\
---
name: fails
version: 1
filter: event.parameters.price.deep > user.x.y
actions: [{type: kafka, body: {e: "${event}", h: "${history}", p: "${user} ${visit}"}}]
---
name: follows
version: 1
filter: event.event_name ~= ""
sequence: {not_followed_by: event.x, within: 1m, match: parameters.cart_id}
cap: {count: 9, per: month}
cooldown: {time: 1m, key: event.parameters.cart_id}
actions: [{type: kafka}]
---
name: always
version: 1
filter: "'x'"
quiet_hours: {start: "00:00", end: "23:59"}
actions: [{type: kafka}, {type: webhook, destination: gone, history: true}]
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rule, ...]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rich.yaml").write_text(RICH.replace("return n >= 0 and event.parameters ~= nil", "return true"))
    (folder / "failing.yaml").write_text(FAILING)
    return load_rules(folder)


class Checked:
    """A shard of which every output is encoded, as it leaves the stage, and counted."""

    def __init__(self, rules: tuple[Rule, ...], filters: Any = None, **settings: Any) -> None:
        self.shard = Shard(
            *rules,
            filters=filters,
            history_fields=("platform", "parameters"),
            destinations={"crm": RetrySchedule()},
            decision_sample=1.0,
            **settings,
        )
        self.settings = HandleSettings(
            rules, inspection_topic="i", audit_topic="a", control_topic="c", decisions_topic="d", user_shards=1
        )
        self.letters: list[str] = []

    def step(self, *args: Any, **kwargs: Any) -> StepResult:
        done = self.shard.step(*args, **kwargs)
        done.include_shared_dead_letters()
        list(outputs_of(done, self.settings, self.shard.state, 0, NOW_MS, UserHash(b"key")))
        self.letters += [letter.reason for letter in done.dead_letters if letter.rule is None]
        return done


def edited(document: Any, rng: random.Random) -> bytes:
    return edited_bytes(orjson.dumps(document), rng) if rng.random() < 0.3 else edited_json(document, rng)


def edited_event(rng: random.Random) -> bytes:
    """An event; mostly only its parameters are edited, so that many are still events."""
    if rng.random() < 0.4:
        return edited(EVENT, rng)
    ids = {"event_id": f"e{rng.randrange(3)}", "is_last_in_visit": rng.random() < 0.2}
    start = orjson.dumps({name: value for name, value in (EVENT | ids).items() if name != "parameters"})
    return start[:-1] + b', "parameters": ' + edited_json(EVENT["parameters"], rng) + b"}"


@pytest.mark.parametrize("user_key", ["record", "field"])
def test_an_edited_event_is_handled_or_becomes_a_letter(
    rules: tuple[Rule, ...], user_key: str, pytestconfig: pytest.Config
) -> None:
    filters, totals = Shard(*rules).filters, Counter[str]()
    for seed in seeds(pytestconfig):
        rng = random.Random(f"event {seed}")
        values = [edited_event(rng) for _ in range(3)]
        keys = [rng.choice([*[b"u"] * 12, None, b"", b"\xff", text_bytes(rng)]) for _ in values]
        records = [
            Record(0, offset, rng.choice(RECORD_TIMES), key, value)
            for offset, (key, value) in enumerate(zip(keys, values, strict=True))
        ]
        try:
            checked = Checked(rules, filters, user_key=user_key)
            assert list(split_by_shard(EVENTS, "events", records, 4, user_key))
            steps = [checked.step(MicroBatch(VERSION, EVENTS, "events", records))]
            while users := steps[-1].users_to_fetch:
                steps.append(checked.step(answers=[Answer(user, answer_of(rng)) for user in users]))
            steps.append(checked.step(stream_ms=2**62))
            steps.append(checked.step(now_ms=NOW_MS + 86_400_000))
            checked.shard.restore()
            steps.append(checked.step())
        except Exception as error:
            raise AssertionError(f"seed {seed}: {records}") from error
        counts = sum((step.counts for step in steps[1:]), steps[0].counts)
        accounted = counts["events_handled"] + counts["duplicates"] + len(checked.letters)
        assert accounted == len(records), f"seed {seed}: {dict(counts)} {checked.letters} {records}"
        totals.update({"handled": counts["events_handled"], "letters": len(checked.letters)})
    assert min(totals["handled"], totals["letters"]) > sum(totals.values()) / 5, totals


def text_bytes(rng: random.Random) -> bytes:
    return rng.choice(HOSTILE_TEXTS).encode("utf-8", "surrogatepass")


def test_an_edited_control_record_does_what_it_says_or_becomes_one_letter(
    rules: tuple[Rule, ...], pytestconfig: pytest.Config
) -> None:
    filters = Shard(*rules).filters
    for seed in seeds(pytestconfig):
        rng = random.Random(f"control {seed}")
        control = rng.choice(CONTROLS)
        record = Record(0, 0, rng.choice(RECORD_TIMES), rng.choice([None, b"u", b"\xff"]), edited(control, rng))
        try:
            checked = Checked(rules, filters)
            checked.step(MicroBatch(VERSION, EVENTS, "events", [Record(0, 0, NOW_MS, b"u", orjson.dumps(EVENT))]))
            checked.step(answers=[Answer("u", answer_of(random.Random(0)))])
            assert list(split_by_shard(CONTROL, "control", [record], 4, "record"))
            done = checked.step(MicroBatch(VERSION, CONTROL, "control", [record]))
            checked.step(now_ms=NOW_MS + 86_400_000)
            checked.shard.restore()
            checked.step()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {record}") from error
        did = (
            len(done.inspections)
            + len(done.erasures)
            + done.counts["redrives"]
            + done.counts["destinations_switched"]
            + done.counts["suppressions_set"]
            + done.counts["suppressions_lifted"]
        )
        assert len(checked.letters) <= 1, f"seed {seed}: {checked.letters} {record}"
        assert set(checked.letters) <= {"bad_control_record"}
        assert not (did and checked.letters), f"seed {seed}: {record}"


def answer_of(rng: random.Random) -> FetchedUser:
    """The user that the client makes of edited answers, or the error that it makes of them."""
    name = rng.choice([*ANSWERS, "none"])
    try:
        answers = {
            call: edited(answer, rng) if call == name else orjson.dumps(answer) for call, answer in ANSWERS.items()
        }
        return fetched_user(answers, ("platform", "parameters"))
    except CallError as error:
        return unavailable(error.kind, str(error))


def test_an_edited_answer_of_the_user_api_is_a_user_or_a_bad_answer(pytestconfig: pytest.Config) -> None:
    for seed in seeds(pytestconfig):
        try:
            fetched = answer_of(random.Random(f"answer {seed}"))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert fetched.error_kind in (None, BAD_ANSWER)
