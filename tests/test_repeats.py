"""Which cause a webhook that came again has, by the ledger, the arrivals and the blows."""

from __future__ import annotations

import pytest

from tests.faults.repeats import (
    APPENDED_S,
    CLAIM,
    IN_FLIGHT,
    LATER,
    NOT_ACKNOWLEDGED,
    SETTLED,
    causes_of_repeats,
    key_of,
)

RECEIVER_S = 1.0
BLOW_S = 100.0
# The shard's first worker, and the one after the blow.
CLAIMS = [(0, 0, 0.0, (CLAIM, "", b"first")), (0, 5, 110.0, (CLAIM, "", b"second"))]

Arrivals = list[tuple[float, str]]


def of(arrivals: Arrivals, *settled: tuple[int, str], blows_s: tuple[float, ...] = (BLOW_S,)) -> tuple[object, object]:
    """Causes and problems with a ledger that has ``CLAIMS``, and at these offsets the ends of these webhooks."""
    ends = [(0, offset, 0.0, (SETTLED, "", key_of(webhook_id))) for offset, webhook_id in settled]
    return causes_of_repeats([*CLAIMS, *ends], arrivals, blows_s, RECEIVER_S)


def test_what_came_once_is_no_repeat() -> None:
    assert of([(1.0, "a"), (120.0, "b")], (1, "a")) == ({}, [])


@pytest.mark.parametrize(
    ("first_s", "cause"),
    [
        (BLOW_S - 0.5, IN_FLIGHT),
        (BLOW_S - RECEIVER_S - 0.1, NOT_ACKNOWLEDGED),
        (BLOW_S - RECEIVER_S + 0.1 - APPENDED_S, NOT_ACKNOWLEDGED),
        (BLOW_S + 3.0, LATER),
    ],
)
def test_each_repeat_has_the_cause_of_its_first_arrival(first_s: float, cause: str) -> None:
    assert of([(first_s, "a"), (120.0, "a")], (9, "a")) == ({cause: 1}, [])
    assert of([(first_s, "a"), (120.0, "a")]) == ({cause: 1}, [])  # its end is not in the ledger yet


def test_the_number_is_that_of_the_worst_blow() -> None:
    arrivals = [(99.5, "a"), (99.6, "b"), (199.5, "c"), (250.0, "a"), (250.0, "b"), (250.0, "c")]
    assert of(arrivals, blows_s=(BLOW_S, 200.0)) == ({IN_FLIGHT: 2}, [])


def test_what_ended_before_the_newest_claim_must_not_come_again() -> None:
    _, problems = of([(99.5, "a"), (120.0, "a")], (4, "a"))
    assert problems == ["a at 120.0: ended at 0/4, claimed at 5"]
    # Before that claim, its worker could not know.
    assert of([(99.5, "a"), (109.0, "a")], (4, "a")) == ({IN_FLIGHT: 1}, [])


def test_only_the_first_end_of_a_webhook_counts() -> None:
    _, problems = of([(99.5, "a"), (120.0, "a")], (4, "a"), (9, "a"))
    assert len(problems) == 1  # type: ignore[arg-type]


def test_no_blow_explains_what_was_answered_long_before_it() -> None:
    _, problems = of([(50.0, "a"), (120.0, "a")])
    assert problems == ["a at 120.0: answered at 51.0, before any blow"]
    _, problems = of([(50.0, "a"), (120.0, "a")], blows_s=())
    assert problems == ["a at 120.0: answered at 51.0, before any blow"]


def test_the_worker_that_claimed_the_shard_after_the_blow_repeats_nothing_of_its_own() -> None:
    _, problems = of([(110.0 + APPENDED_S + 0.1, "a"), (120.0, "a")])
    assert problems == ["a at 120.0: sent at 112.1, after 0 was claimed at 110.0"]
