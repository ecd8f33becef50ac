from __future__ import annotations

import pytest

from transforms.adapters.http.calls import retry_after_s
from transforms.domain.base.backoff import Backoff

NOW_S = 1_784_894_400.0  # Fri, 24 Jul 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 999_999_999_999.0),
        ("Fri, 24 Jul 2026 12:00:30 GMT", 30.0),
        ("Fri, 24 Jul 2026 11:00:00 GMT", 0.0),
        ("Fri, 24 Jul 2026 14:00:30 +0200", 30.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("Fri, 24 Jul 99999 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW_S) == seconds


def test_pauses_have_full_jitter_under_a_bound_that_doubles() -> None:
    backoff = Backoff(0.1, 2.0)
    assert [round(backoff.pause_s(tries, None, 1.0), 3) for tries in (1, 2, 3, 4, 5, 6, 7, 5000)] == [
        *(0.1, 0.2, 0.4, 0.8, 1.6),
        *(2.0, 2.0, 2.0),
    ]
    assert backoff.pause_s(3, None, 0.0) == 0
    assert backoff.pause_s(3, None, 0.5) == pytest.approx(0.2)


def test_a_bound_that_grows_slowly_grows_up_to_the_longest_all_the_same() -> None:
    backoff = Backoff(1.0, 1000.0, 1.1)
    assert backoff.pause_s(61, None, 1.0) == pytest.approx(1.1**60)
    assert backoff.pause_s(100, None, 1.0) == 1000.0
    assert Backoff(1.0, 1000.0, 1.0).pause_s(10**9, None, 1.0) == 1.0


def test_a_pause_is_never_shorter_than_the_server_asked_for() -> None:
    assert Backoff(0.1, 2.0).pause_s(1, 7.0, 0.0) == 7.0
    assert Backoff(0.1, 2.0).pause_s(1, 7.0, 1.0) == pytest.approx(7.1)
