"""The judge of ``tests/faults`` sees each way in which something may be wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.builders import NOW_MS, event, oracle_rules, random_stream, user_api_of
from tests.faults.verdict import HOOK, HOOK_RULE, Fault, FilterResult, firings_of_webhooks, judge, repeats_from_before
from tests.oracle import Oracle, SeenAction

USERS = [f"user-{number:04d}" for number in range(20)]
RECORDS = list(random_stream(seed=3, users=20, events=400, poison=False))


class Outputs:
    """What a faultless job would have put out; tests spoil it."""

    def __init__(self) -> None:
        self.oracle = Oracle([*oracle_rules(), HOOK_RULE], user_api_of(USERS))
        for key, value in RECORDS:
            self.oracle.feed(key, value)
        fired = self.oracle.actions
        self.seen = [
            SeenAction(action.body, action.rule, action.version, repr(action))
            for action in fired
            if action.rule != HOOK
        ]
        self.webhooks = [
            (
                action.event_id,
                json.dumps({name: action.body[name] for name in action.body if name != "eventHistory"}).encode(),
            )
            for action in fired
            if action.rule == HOOK
        ]
        self.states: dict[str, dict[str, Any]] = {user: self.oracle.state(user) for user in USERS}

    def judge(self, unanswered_users: set[str] = frozenset()) -> FilterResult:  # type: ignore[assignment]
        return judge(self.oracle, len(RECORDS), self.seen, self.webhooks, [], self.states, unanswered_users)


@pytest.fixture
def outputs() -> Outputs:
    return Outputs()


def counts(verdict: FilterResult) -> tuple[int, int, int, int]:
    return verdict.lost, verdict.duplicated, verdict.order_inversions, verdict.webhook_repeats


def test_what_is_right_is_right(outputs: Outputs) -> None:
    outputs.webhooks += outputs.webhooks[:3]
    verdict = outputs.judge()
    assert verdict.problems == []
    assert counts(verdict) == (0, 0, 0, 3)
    assert (verdict.events, verdict.webhooks) == (400, len(outputs.webhooks) - 3)


def test_a_lost_action_and_a_lost_webhook_are_counted(outputs: Outputs) -> None:
    del outputs.seen[5], outputs.webhooks[7]
    verdict = outputs.judge()
    assert counts(verdict) == (2, 0, 0, 0)
    assert any("webhook missing" in problem for problem in verdict.problems)


def test_an_action_that_comes_twice_is_counted(outputs: Outputs) -> None:
    outputs.seen.append(outputs.seen[5])
    assert counts(outputs.judge()) == (0, 1, 0, 0)


def test_a_webhook_under_another_id_is_counted(outputs: Outputs) -> None:
    outputs.webhooks.append(("another", outputs.webhooks[0][1]))
    assert counts(outputs.judge())[:2] == (0, 1)


def test_a_repeat_with_another_body_is_a_problem(outputs: Outputs) -> None:
    webhook_id, body = outputs.webhooks[0]
    outputs.webhooks.append((webhook_id, json.dumps(json.loads(body) | {"currentVisit": None}).encode()))
    assert outputs.judge().problems == [f"webhook {webhook_id} came again with another body"]


def test_order_is_looked_at(outputs: Outputs) -> None:
    of_user = [n for n, action in enumerate(outputs.seen) if action.body["event"]["user_id"] == "user-0003"]
    first, last = of_user[0], of_user[-1]
    outputs.seen[first], outputs.seen[last] = outputs.seen[last], outputs.seen[first]
    verdict = outputs.judge()
    assert (verdict.lost, verdict.duplicated, verdict.order_inversions) == (0, 0, 1)

    outputs.seen[first], outputs.seen[last] = outputs.seen[last], outputs.seen[first]
    hooks = [n for n, (_, body) in enumerate(outputs.webhooks) if json.loads(body)["event"]["user_id"] == "user-0003"]
    first, last = hooks[0], hooks[-1]
    outputs.webhooks[first], outputs.webhooks[last] = outputs.webhooks[last], outputs.webhooks[first]
    assert outputs.judge().order_inversions == 1


def test_an_event_that_is_counted_twice_shows_in_the_state(outputs: Outputs) -> None:
    history = outputs.states["user-0001"]["eventHistory"]
    outputs.states["user-0001"] = {**outputs.states["user-0001"], "eventHistory": [*history, history[-1]]}
    assert any("eventHistory" in problem for problem in outputs.judge().problems)


def test_a_unanswered_users_profile_does_not_count_but_its_events_do(outputs: Outputs) -> None:
    unanswered_user = json.loads(outputs.webhooks[0][1])["event"]["user_id"]
    webhook_id, body = outputs.webhooks[0]
    outputs.webhooks[0] = (
        webhook_id,
        json.dumps(json.loads(body) | {"userProfile": {"enrichment": "unavailable"}}).encode(),
    )
    outputs.seen = [action for action in outputs.seen if action.body["event"]["user_id"] != unanswered_user]
    assert outputs.judge().problems != []
    assert outputs.judge({unanswered_user}).problems == []
    del outputs.webhooks[0]
    assert outputs.judge({unanswered_user}).lost == 1


@pytest.mark.parametrize(
    ("arrived", "problems"),
    [
        ([(100, "a"), (101, "b"), (120, "a"), (121, "b")], 0),
        ([(112, "a"), (119, "a")], 0),
        ([(96, "a"), (120, "a")], 1),
        ([(100, "a"), (105, "a")], 1),
        ([(100, "a"), (125, "a"), (170, "a")], 1),
        ([(125, "a"), (130, "a")], 1),
        ([(100, "a"), (170, "a")], 0),
        ([(155, "a"), (170, "a")], 0),
        ([(180, "a"), (181, "a")], 1),
    ],
    ids=[
        *("since the checkpoint", "by who was not struck", "before it", "no fault yet", "a later checkpoint knew it"),
        *("no fault between", "long after", "the second fault", "no fault any more"),
    ],
)
def test_a_repeat_must_be_of_what_no_checkpoint_knew(arrived: list[tuple[float, str]], problems: int) -> None:
    faults = [Fault(checkpoint_s=99, struck_s=110, over_s=120), Fault(checkpoint_s=150, struck_s=160, over_s=170)]
    assert len(repeats_from_before(faults, arrived)) == problems


def test_an_event_too_late_for_its_history_is_acted_on_again() -> None:
    oracle = Oracle([HOOK_RULE], {}, history_size=1)
    for event_id, at_ms in (("new", NOW_MS + 200), ("late", NOW_MS + 100), ("late", NOW_MS + 100)):
        record = event("u1", event_id=event_id, event_name="click", timestamp=at_ms, is_first_in_visit=True)
        oracle.feed(b"u1", json.dumps(record).encode())
    bodies = firings_of_webhooks(oracle)["u1", "late"]
    assert len(bodies) == 2

    def problems(*late: dict[str, Any]) -> list[str]:
        webhooks = [("new", firings_of_webhooks(oracle)["u1", "new"][0]), *(("late", action) for action in late)]
        states = {"u1": oracle.state("u1")}
        return judge(
            oracle, 3, [], [(webhook_id, json.dumps(body).encode()) for webhook_id, body in webhooks], [], states
        ).problems

    assert problems(*bodies) == []
    assert problems(bodies[0]) == []
    assert problems(*bodies, bodies[0] | {"userProfile": None}) == ["webhook late came again with another body"]


def test_of_a_crowded_user_webhooks_may_be_dead_letters_instead(outputs: Outputs) -> None:
    event = json.loads(outputs.webhooks.pop(0)[1])["event"]
    user, event_id = event["user_id"], event["event_id"]
    value = next(value for _, value in RECORDS if json.loads(value)["event_id"] == event_id)
    letter = {
        "reason": "delivery_queue_full",
        "key": base64.b64encode(user.encode()).decode(),
        "value": base64.b64encode(value).decode(),
    }

    def judged(crowded: str | None, *letters: dict[str, Any]) -> FilterResult:
        args = (outputs.oracle, len(RECORDS), outputs.seen, outputs.webhooks, letters, outputs.states, ())
        return judge(*args, crowded)

    assert (judged(user, letter).problems, judged(user, letter).given_up) == ([], 1)
    assert judged(user).lost == 1
    assert judged(None, letter).lost == 1
    assert any("delivery_queue_full" in problem for problem in judged(None, letter).problems)
