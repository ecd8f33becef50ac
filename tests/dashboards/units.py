"""Numbers as Grafana writes them in the units that our dashboards have, and the ticks of an axis."""

from __future__ import annotations

import math
from typing import Final

# Unit -> from which value on, by what it is divided, what is written behind it.
_Scales = tuple[tuple[float, float, str], ...]


def _count(suffix: str) -> _Scales:
    return ((0, 1, suffix), (1e3, 1e3, f"K{suffix}"), (1e6, 1e6, f"M{suffix}"), (1e9, 1e9, f"B{suffix}"))


def _binary(suffix: str) -> _Scales:
    prefixes = ("", "Ki", "Mi", "Gi", "Ti")
    return tuple((1024**n if n else 0, 1024**n, f" {prefix}{suffix}") for n, prefix in enumerate(prefixes))


_UNITS: Final[dict[str, _Scales]] = {
    "short": ((0, 1, ""), (1e3, 1e3, " K"), (1e6, 1e6, " Mil"), (1e9, 1e9, " Bil")),
    "eps": _count(" evt/s"),
    "reqps": _count(" req/s"),
    "ms": ((0, 1, " ms"), (1e3, 1e3, " s"), (6e4, 6e4, " min"), (3.6e6, 3.6e6, " hour")),
    "bytes": _binary("B"),
    "binBps": _binary("B/s"),
    "percentunit": ((0, 0.01, "%"),),
}
UNITS: Final = frozenset(_UNITS)
_TICKS: Final = 4
_DIGITS: Final = 3


def shown(value: float, unit: str, step: float | None = None) -> str:
    """``value`` with its unit: with three digits, or, on an axis, with those that ``step`` needs.

    Raises:
        KeyError: the unit is none of ``UNITS``.
    """
    _, divisor, suffix = _scale(value, unit)
    number = value / divisor
    if step is not None:
        decimals = _decimals(step / divisor)
    else:
        decimals = _DIGITS - 1 - math.floor(math.log10(abs(number))) if number else 0
        decimals = min(max(decimals, 0), _DIGITS - 1)
    text = f"{number:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{suffix}"


def ticks(top: float, unit: str) -> list[float]:
    """Values to label on an axis from 0 on; the last one is ``top`` or above: the end of the axis."""
    if top <= 0:
        top = 1.0
    _, divisor, _ = _scale(top, unit)
    smallest = top / divisor / _TICKS
    power = 10 ** math.floor(math.log10(smallest))
    # The tolerance is for what is a multiple but for the last bit of a float.
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= smallest * (1 - 1e-9)) * divisor
    return [step * number for number in range(math.ceil(top / step - 1e-9) + 1)]


def _scale(value: float, unit: str) -> tuple[float, float, str]:
    return next(scale for scale in reversed(_UNITS[unit]) if abs(value) >= scale[0])


def _decimals(step: float) -> int:
    """How many a number needs so that multiples of ``step`` differ."""
    return next(count for count in range(10) if math.isclose(round(step, count), step, rel_tol=1e-6))
