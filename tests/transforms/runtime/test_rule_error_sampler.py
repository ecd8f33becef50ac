from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.events.dead_letter import NOT_JSON, RULE_ERROR, DeadLetter
from transforms.runtime.rule_error_sampler import RuleErrorSampler

NOON_MS = 1_704_110_400_000  # 2024-01-01T12:00:00Z
MINUTE_MS = 60_000


def letter(rule: str | None, detail: str = "no", reason: str = RULE_ERROR) -> DeadLetter:
    return DeadLetter(reason, detail, "events", 0, 0, NOON_MS, b"u", b"{}", rule)


def test_the_first_errors_of_a_minute_get_a_letter_and_the_next_minute_says_how_many_did_not() -> None:
    sampler = RuleErrorSampler(2)
    errors = [letter("r", f"error {n}") for n in range(5)]
    assert sampler.choose(errors, NOON_MS + 5_000) == errors[:2]
    assert sampler.choose(errors[:1], NOON_MS + 59_999) == []
    (first, second) = sampler.choose(errors[:3], NOON_MS + 60_000)
    assert first.detail == "error 0 [errors of this rule without a letter since 2024-01-01T12:00:05Z: 4]"
    assert second == errors[1]
    assert sampler.choose(errors[4:], NOON_MS + 600_000)[0].detail == (
        "error 4 [errors of this rule without a letter since 2024-01-01T12:01:00Z: 1]"
    )


def test_every_rule_has_its_own_limit_and_other_reasons_have_none() -> None:
    sampler = RuleErrorSampler(1)
    mixed = [letter("a"), letter(None, reason=NOT_JSON), letter("a"), letter("b"), letter(None, reason=NOT_JSON)]
    assert sampler.choose(mixed, NOON_MS) == [mixed[0], mixed[1], mixed[3], mixed[4]]


def test_with_a_limit_of_0_no_rule_error_gets_a_letter() -> None:
    sampler = RuleErrorSampler(0)
    other = letter(None, reason=NOT_JSON)
    for minute in range(3):
        assert sampler.choose([letter("r"), other], NOON_MS + minute * MINUTE_MS) == [other]


def test_a_clock_that_is_set_back_opens_no_new_minute() -> None:
    sampler = RuleErrorSampler(1)
    assert len(sampler.choose([letter("r")], NOON_MS)) == 1
    assert sampler.choose([letter("r")], NOON_MS - MINUTE_MS) == []
    assert sampler.choose([letter("r")], NOON_MS) == []
    assert len(sampler.choose([letter("r")], NOON_MS + MINUTE_MS)) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5 * MINUTE_MS)), max_size=80), st.integers(1, 4))
def test_no_error_is_lost_without_being_counted(errors: list[tuple[str, int]], per_minute: int) -> None:
    sampler = RuleErrorSampler(per_minute)
    errors = sorted(errors, key=lambda error: error[1])
    sent: list[tuple[str, int, int]] = []  # rule, minute, how many errors it says were left out
    for rule, at_ms in errors:
        for chosen in sampler.choose([letter(rule)], at_ms):
            match = re.search(r": (\d+)]$", chosen.detail)
            sent.append((rule, at_ms // MINUTE_MS, int(match[1]) if match else 0))
    for rule in "abc":
        # A letter an hour later says how many of the last minute were left out.
        last = sampler.choose([letter(rule)], 60 * MINUTE_MS)[0]
        match = re.search(r": (\d+)]$", last.detail)
        left_out = sum(count for name, _, count in sent if name == rule) + (int(match[1]) if match else 0)
        of_rule = [at_ms // MINUTE_MS for name, at_ms in errors if name == rule]
        with_letter = [minute for name, minute, _ in sent if name == rule]
        assert left_out + len(with_letter) == len(of_rule)
        for minute in range(6):
            assert with_letter.count(minute) == min(per_minute, of_rule.count(minute))


def test_threads_share_the_limit() -> None:
    sampler = RuleErrorSampler(10)
    with ThreadPoolExecutor(8) as pool:
        chosen = list(pool.map(lambda _: len(sampler.choose([letter("r")] * 50, NOON_MS)), range(40)))
    assert sum(chosen) == 10
    assert sampler.choose([letter("r")], NOON_MS + MINUTE_MS)[0].detail.endswith(f": {40 * 50 - 10}]")
