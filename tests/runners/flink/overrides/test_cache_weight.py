from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.runners.worker import statecache

from runners.flink.overrides.cache_weight import cache_weight


class Head:
    def cache_weight(self) -> int:
        return 5_000


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (b"x" * 1000, 1000, 1100),
        ("x" * 1000, 1000, 1100),
        ([b"x" * 1000] * 10, 10_000, 11_000),
        ([Head(), b"x" * 1000], 6_000, 6_300),
        ((Head(), [Head()]), 10_000, 10_300),
        ({"a": b"x" * 1000}, 1000, 1300),
        ([], 1, 100),
        (None, 1, 100),
        (0, 1, 100),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_weight_is_about_the_size_of_the_content(value: Any, least: int, most: int) -> None:
    assert least <= cache_weight(value) <= most


def test_weighing_does_not_follow_references_into_modules_or_cycles() -> None:
    loop: list[Any] = [sys]
    loop.append(loop)
    assert cache_weight(loop, sys, subprocess.Popen) < 10_000


def test_the_first_element_may_report_the_weight_of_the_whole_bag() -> None:
    head = SimpleNamespace(cache_weight_of_bag=lambda: 700, cache_weight=lambda: 5)
    assert cache_weight([head, b"x" * 1000]) == 700
    assert cache_weight([b"x" * 1000, head]) > 1000


def test_an_object_that_reports_zero_weighs_one_byte() -> None:
    assert cache_weight(SimpleNamespace(cache_weight=lambda: 0)) == 1


@pytest.mark.usefixtures("applied")
def test_the_cache_evicts_by_the_weight_that_objects_report() -> None:
    cache = statecache.StateCache(12_000)
    for key in ("a", "b", "c"):
        cache.put(key, [Head()])
    assert [cache.peek(key) is not None for key in ("a", "b", "c")] == [False, True, True]


@pytest.mark.usefixtures("applied")
def test_an_entry_that_grew_is_weighed_again() -> None:
    cache = statecache.StateCache(12_000)
    bag: list[Any] = [Head()]
    cache.put("bag", bag)
    cache.put("other", [Head()])
    bag.append(Head())
    cache.put("bag", bag)
    assert cache.peek("other") is None
    assert cache.peek("bag") is bag
