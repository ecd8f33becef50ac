"""What Grafana's own documentation of units and its panels show for such values."""

from __future__ import annotations

import pytest
from grafana_foundation_sdk.models import units

from tests.dashboards.units import UNITS, shown, ticks


def test_grafana_has_every_unit() -> None:
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert known >= UNITS


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (7, "short", "7"),
        (1234, "short", "1.23 K"),
        (12_500_000, "short", "12.5 Mil"),
        (0.04, "short", "0.04"),
        (200.26, "eps", "200 evt/s"),
        (2468, "eps", "2.47K evt/s"),
        (48.3, "reqps", "48.3 req/s"),
        (32.1, "ms", "32.1 ms"),
        (1500, "ms", "1.5 s"),
        (90_000, "ms", "1.5 min"),
        (999, "bytes", "999 B"),
        (1024, "bytes", "1 KiB"),
        (5 * 1024**2, "bytes", "5 MiB"),
        (2.5 * 1024**3, "binBps", "2.5 GiB/s"),
        (0.987, "percentunit", "98.7%"),
        (1, "percentunit", "100%"),
        (100, "short", "100"),
    ],
)
def test_a_value_has_three_digits_and_the_scale_that_fits(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


@pytest.mark.parametrize(
    ("top", "unit", "texts"),
    [
        (0, "short", ["0", "0.5", "1"]),
        (1, "percentunit", ["0%", "50%", "100%"]),
        (0.041, "percentunit", ["0%", "2%", "4%", "6%"]),
        (187, "eps", ["0 evt/s", "50 evt/s", "100 evt/s", "150 evt/s", "200 evt/s"]),
        (0.9, "short", ["0", "0.5", "1"]),
        (2000, "ms", ["0 ms", "500 ms", "1 s", "1.5 s", "2 s"]),
        (130 * 1024**2, "bytes", ["0 B", "50 MiB", "100 MiB", "150 MiB"]),
        (0.3, "short", ["0", "0.1", "0.2", "0.3"]),
    ],
)
def test_an_axis_has_a_few_round_numbers_and_ends_at_its_highest_value_or_above(
    top: float, unit: str, texts: list[str]
) -> None:
    found = ticks(top, unit)
    assert found[-1] >= top - 1e-9
    assert [shown(tick, unit, found[1]) for tick in found] == texts
