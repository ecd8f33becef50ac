from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from transforms.domain import profiles
from transforms.domain.profiles import NOTHING_KNOWN, OTHER, FetchedUser, FetchPool, NoUserApi, shared_pool, unavailable


def test_without_an_api_everybody_is_unknown() -> None:
    assert NoUserApi().fetch("u1") == NOTHING_KNOWN


class HeldApi:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def fetch(self, user_id: str) -> FetchedUser:
        self.asked.append(user_id)
        assert self.go.wait(10)
        if user_id == "broken":
            raise ValueError("no such thing")
        return FetchedUser("fetched", user_id.encode(), None, [])


@pytest.fixture
def held() -> Iterator[HeldApi]:
    api = HeldApi()
    yield api
    api.go.set()


def test_a_user_is_asked_for_once_however_often_it_is_wanted(held: HeldApi) -> None:
    pool = FetchPool(held, 4)
    for _ in range(10):
        pool.request("u1")
    assert pool.take("u1") is None
    held.go.set()
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked == ["u1"]


def test_an_answer_is_taken_once_and_then_asked_for_anew(held: HeldApi) -> None:
    held.go.set()
    pool = FetchPool(held, 1)
    pool.request("u1")
    pool.wait("after it, as there is one thread")
    assert pool.take("u1") == FetchedUser("fetched", b"u1", None, [])
    assert pool.take("u1") is None
    pool.request("u1")
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked.count("u1") == 2


def test_users_are_fetched_beside_each_other(held: HeldApi) -> None:
    pool = FetchPool(held, 3)
    for name in ("a", "b", "c"):
        pool.request(name)
    until = time.monotonic() + 10
    while len(held.asked) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    assert sorted(held.asked) == ["a", "b", "c"]


def test_whatever_a_client_raises_is_an_unavailable_user(held: HeldApi) -> None:
    held.go.set()
    assert FetchPool(held, 1).wait("broken") == unavailable(OTHER, "ValueError: no such thing")


def test_an_answer_that_nobody_took_in_time_is_asked_for_anew(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = FetchPool(held, 1)
    pool.request("u1")
    pool.wait("after it")
    monkeypatch.setattr(FetchPool, "_KEPT_S", -1.0)  # every answer is too old
    pool.request("u1")
    monkeypatch.undo()
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked.count("u1") == 2


def test_an_old_answer_is_not_taken(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = FetchPool(held, 1)
    pool.request("u1")
    pool.wait("after it")
    monkeypatch.setattr(FetchPool, "_KEPT_S", -1.0)
    assert pool.take("u1") is None


def test_answers_nobody_takes_make_room(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    monkeypatch.setattr(FetchPool, "_KEPT_ANSWERS", 3)
    pool = FetchPool(held, 1)
    for number in range(10):
        pool.request(f"u{number}")
        pool.wait("after it")
    assert len(pool._calls) <= 3
    assert pool.take("u0") is None
    assert pool.take("u9") is not None


def test_one_pool_is_shared_by_equal_settings() -> None:
    made: list[FetchPool] = []

    def make() -> FetchPool:
        made.append(FetchPool(NoUserApi(), 1))
        return made[-1]

    key = object()
    assert shared_pool(key, make) is shared_pool(key, make)
    assert len(made) == 1
    profiles._pools.pop(key)
