"""``recheck``: rules are asked again when quiet hours release their actions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.builders import NOW_MS, Shard, batch, event, fetched
from tests.oracle import UNAVAILABLE
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

HOUR_MS = 3600 * 1000
END_MS = NOW_MS + 8 * HOUR_MS
QUIET = {"start": "00:00", "end": "08:00"}  # NOW_MS is midnight
NOT_BOUGHT = 'count{event="buy", within="12h"} == 0'
BOUGHT = {"event_id": "b", "event_name": "buy", "timestamp": NOW_MS + HOUR_MS}


def rule(recheck: str = NOT_BOUGHT, **fields: Any) -> Rule:
    document = {
        "name": "r",
        "version": 1,
        "filter": 'event.event_name == "go"',
        "actions": [{"type": "kafka"}],
        "quiet_hours": QUIET,
        "recheck": recheck,
    }
    return Rule.model_validate(document | fields)


class Known:
    """A shard whose user API knows what ``api`` says, and what came out of it."""

    def __init__(self, *rules: Rule, ttl_ms: int = 100 * HOUR_MS, api: Any = None) -> None:
        self.shard = Shard(*rules, ttl_ms=ttl_ms, decision_sample=0.0)
        self.api = {"profile": {}} if api is None else api
        self.steps: list[StepResult] = []

    def say(self, *events: dict[str, Any], now_ms: int = NOW_MS) -> None:
        self._step(batch(*events) if events else None, now_ms=now_ms)
        self.answer()

    def answer(self) -> None:
        while self.shard.fetch_started_ms:
            self._step(answers=[Answer(user_id, fetched(self.api)) for user_id in self.shard.fetch_started_ms])

    def wait(self, now_ms: int, stream_ms: int | None = None) -> None:
        """Without the answer of the user API."""
        self._step(now_ms=now_ms, stream_ms=stream_ms)

    def _step(self, *given: Any, **named: Any) -> None:
        self.steps.append(self.shard.step(*given, **named))

    @property
    def sent(self) -> list[str]:
        return [orjson.loads(action.body)["event"]["event_id"] for step in self.steps for action in step.actions]

    @property
    def last_decision(self) -> tuple[str, str | None]:
        decision = [decision for step in self.steps for decision in step.decisions][-1]
        return decision.decision, decision.detail

    def count(self, name: str) -> int:
        return sum(step.counts[name] for step in self.steps)


def go(**fields: Any) -> dict[str, Any]:
    return event("u", event_id="a", event_name="go", **fields)


def buy(after_ms: int = HOUR_MS) -> dict[str, Any]:
    return event("u", event_id="b", event_name="buy", timestamp=NOW_MS + after_ms)


def test_what_the_rule_still_allows_goes_out_as_it_was_decided() -> None:
    known = Known(rule())
    known.say(go())
    assert known.sent == []
    known.say(now_ms=END_MS)
    assert known.sent == ["a"]
    assert known.last_decision[0] == "released"


def test_what_was_bought_meanwhile_does_not_go_out_and_the_log_says_so() -> None:
    known = Known(rule())
    known.say(go())
    known.say(buy(), now_ms=NOW_MS + HOUR_MS)
    known.say(now_ms=END_MS)
    assert known.sent == []
    assert known.last_decision == ("dropped", "recheck does not allow it at 2024-01-01T08:00:00.000Z")
    assert known.count("held_dropped") == 1
    known.say(now_ms=END_MS + 24 * HOUR_MS)
    assert known.sent == []


def test_a_restore_in_between_changes_nothing() -> None:
    known = Known(rule("event.parameters.sku == 1 and #history == 2"))
    known.say(go(parameters={"sku": 1}))
    known.say(buy(), now_ms=NOW_MS + HOUR_MS)
    known.shard.restore()
    known.say(now_ms=END_MS)
    assert known.sent == ["a"]


def test_recheck_counts_back_from_the_release_by_the_clock_of_the_user() -> None:
    known = Known(rule('local_time.hour == 8 and count{event="buy", within="2h"} == 1 and event.event_name == "go"'))
    known.say(go())
    known.say(buy(7 * HOUR_MS), now_ms=NOW_MS + 7 * HOUR_MS)
    known.say(now_ms=END_MS)
    assert known.sent == ["a"]


@pytest.mark.parametrize(("history", "sent"), [([], ["a"]), ([BOUGHT], [])], ids=["bought nothing", "bought"])
def test_a_user_who_was_forgotten_is_loaded_again_before_the_rule_is_asked(history: list[Any], sent: list[str]) -> None:
    known = Known(rule(), ttl_ms=HOUR_MS // 2)
    known.say(go())
    known.wait(NOW_MS + HOUR_MS)
    assert known.shard.state.users.get("u") is None
    known.api = {"profile": {}, "visit": None, "history": history}
    known.wait(END_MS)
    assert known.sent == []
    assert list(known.shard.fetch_started_ms) == ["u"]
    known.shard.restore()
    assert list(known.shard.fetch_started_ms) == ["u"], "asked anew after a restore"
    known.wait(END_MS + 1)  # still waits, and no timer runs for it
    assert known.shard.state.rule_states.clock_due.next_ms() is None
    known.answer()
    assert known.sent == sent
    assert known.shard.state.rule_states.get("u") is None


def test_a_sequence_that_is_due_by_the_stream_stays_open_while_a_recheck_waits() -> None:
    sequence = {"not_followed_by": "false", "within": "1d"}
    known = Known(rule(), rule(name="s", sequence=sequence, quiet_hours=None, recheck=None), ttl_ms=HOUR_MS // 2)
    known.say(go())
    known.wait(END_MS)
    known.answer()
    assert known.sent == ["a"]
    assert len(known.shard.state.rule_states.of("u").open) == 1


def test_without_a_profile_a_rule_that_skips_sends_nothing() -> None:
    known = Known(rule("true", on_missing_profile="skip"), ttl_ms=HOUR_MS // 2)
    known.say(go())
    known.say(event("u", event_id="c", event_name="go"))  # the first one only loaded the user
    known.api = UNAVAILABLE
    known.say(now_ms=END_MS)
    assert known.sent == []
    assert known.last_decision == ("skipped", "recheck: profile is unavailable")


def test_a_recheck_that_fails_is_an_error_of_its_rule_with_the_event() -> None:
    known = Known(rule("event.parameters.cart.total > 1"))
    known.say(go())
    known.say(now_ms=END_MS)
    (letter,) = (letter for step in known.steps for letter in step.dead_letters)
    assert (letter.reason, letter.rule) == ("rule_error", "r")
    assert letter.detail.startswith("r.recheck:1: ")
    assert orjson.loads(letter.value)["event_id"] == "a"
    assert known.sent == []
    assert known.last_decision[0] == "error"


def test_what_was_held_before_the_rule_had_a_recheck_goes_out() -> None:
    known = Known(rule())
    known.shard.filters = Known(rule(recheck=None)).shard.filters
    known.say(go())
    known.shard.filters = Known(rule("false")).shard.filters
    known.say(now_ms=END_MS)
    assert known.sent == ["a"]


def test_a_recheck_does_not_run_on_events() -> None:
    known = Known(rule('error("never at an event")'), rule("true", name="other"))
    known.say(go())
    assert known.count("rule_errors") == 0


@pytest.mark.parametrize("quiet", [None, QUIET | {"mode": "drop"}], ids=["no quiet hours", "quiet hours that drop"])
def test_a_recheck_needs_quiet_hours_that_hold(quiet: Any) -> None:
    with pytest.raises(ValidationError, match="the rule has no quiet_hours that hold actions"):
        rule(quiet_hours=quiet)
