from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import pytest

from tests.waiting import eventually
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.user_api.client import HttpUserApi
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser


def test_without_an_api_everybody_is_unknown() -> None:
    assert FetchPool(None).wait("u1") == NOTHING_KNOWN


def pool_of(api: HeldApi | NumberedApi, at_a_time: int) -> FetchPool:
    """A pool whose API fetches so many users at a time."""
    api.threads = DaemonThreads(at_a_time, "user-api")
    started = SimpleNamespace(start=lambda user_id: api.threads.submit(api.fetch, user_id))
    return FetchPool(cast(HttpUserApi, started))


class HeldApi:
    """Answers when the test lets it."""

    threads: DaemonThreads

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def fetch(self, user_id: str) -> FetchedUser:
        self.asked.append(user_id)
        assert self.go.wait(10)
        return FetchedUser("fetched", user_id.encode(), None)


@pytest.fixture
def held() -> Iterator[HeldApi]:
    api = HeldApi()
    yield api
    api.go.set()


def take(pool: FetchPool, user_id: str) -> FetchedUser | None:
    """The answer if it has come; starts no fetch."""
    return dict(pool.poll([user_id])).get(user_id) if user_id in pool._calls else None


def test_a_user_is_asked_for_once_however_often_it_is_wanted(held: HeldApi) -> None:
    pool = pool_of(held, 4)
    for _ in range(10):
        pool.request("u1")
    assert take(pool, "u1") is None
    held.go.set()
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked == ["u1"]


def test_an_answer_is_taken_once_and_then_asked_for_anew(held: HeldApi) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    pool.request("u1")
    pool.wait("after it, as there is one thread")
    assert take(pool, "u1") == FetchedUser("fetched", b"u1", None)
    assert take(pool, "u1") is None
    pool.request("u1")
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked.count("u1") == 2


def test_users_are_fetched_beside_each_other(held: HeldApi) -> None:
    pool = pool_of(held, 3)
    for name in ("a", "b", "c"):
        pool.request(name)
    eventually(lambda: len(held.asked) >= 3, "all three are asked for", 10, 0.002)
    assert sorted(held.asked) == ["a", "b", "c"]


def test_an_answer_that_is_not_taken_in_time_is_fetched_again(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    pool.request("u1")
    pool.wait("after it")
    monkeypatch.setattr(pool, "_kept_s", -1.0)  # every answer is too old
    pool.request("u1")
    monkeypatch.undo()
    assert pool.wait("u1").profile_json == b"u1"
    assert held.asked.count("u1") == 2


def test_an_old_answer_is_not_taken(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    pool.request("u1")
    pool.wait("after it")
    monkeypatch.setattr(pool, "_kept_s", -1.0)
    assert take(pool, "u1") is None


def test_answers_that_are_never_taken_make_room(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    monkeypatch.setattr(pool, "_kept", 3)
    for number in range(10):
        pool.request(f"u{number}")
        pool.wait("after it")
    assert len(pool._calls) <= 3
    assert take(pool, "u0") is None
    assert take(pool, "u9") is not None


def test_calls_in_flight_take_no_room_from_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    futures: dict[str, Future[FetchedUser]] = {}

    def start(user_id: str) -> Future[FetchedUser]:
        futures[user_id] = Future()
        return futures[user_id]

    pool = FetchPool(cast(HttpUserApi, SimpleNamespace(start=start)))
    monkeypatch.setattr(pool, "_kept", 3)
    names = [f"u{number}" for number in range(20)]
    for name in names:
        pool.request(name)
    futures["u0"].set_result(NOTHING_KNOWN)
    futures["u7"].set_result(NOTHING_KNOWN)
    pool.request("u20")
    assert pool.poll(names) == [("u0", NOTHING_KNOWN), ("u7", NOTHING_KNOWN)]


def test_answers_too_old_to_use_make_room_too(held: HeldApi, monkeypatch: pytest.MonkeyPatch) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    for number in range(10):
        pool.request(f"u{number}")
    pool.wait("after them")
    assert len(pool._calls) == 10
    monkeypatch.setattr(pool, "_kept_s", -1.0)
    pool.request("another")
    assert list(pool._calls) == ["another"]


class NumberedApi:
    """Answers each fetch with its number, each when the test lets it."""

    threads: DaemonThreads

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = [threading.Event() for _ in range(4)]

    def fetch(self, user_id: str) -> FetchedUser:
        self.asked.append(user_id)
        number = len(self.asked)
        assert self.go[number].wait(10)
        return FetchedUser("fetched", b"%d" % number, None)


def test_a_cancelled_fetch_that_has_not_begun_never_does(held: HeldApi) -> None:
    pool = pool_of(held, 1)
    pool.request("running")
    eventually(lambda: held.asked == ["running"], "the fetches have come so far", 10, 0.002)
    pool.request("forgotten")
    pool.request("kept")
    pool.cancel("forgotten")
    held.go.set()
    assert pool.wait("kept").profile_json == b"kept"
    assert take(pool, "forgotten") is None
    assert held.asked == ["running", "kept"]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_answer_of_a_cancelled_fetch_in_flight_is_dropped(order: tuple[int, int]) -> None:
    api = NumberedApi()
    pool = pool_of(api, 2)
    pool.request("u1", 111)
    eventually(lambda: len(api.asked) == 1, "the fetches have come so far", 10, 0.002)
    pool.cancel("u1")
    assert pool.request("u1", 222) == 222
    eventually(lambda: len(api.asked) == 2, "the fetches have come so far", 10, 0.002)
    api.go[order[0]].set()
    api.threads.submit(int).result(10)  # begins when the first of the two has ended
    early = take(pool, "u1")
    api.go[order[1]].set()
    if order == (1, 2):
        assert early is None
        early = pool.wait("u1")
    assert early == FetchedUser("fetched", b"2", None)
    assert take(pool, "u1") is None


def test_fetches_that_are_missing_are_restarted(held: HeldApi) -> None:
    pool = pool_of(held, 2)
    pool.request("u1", 111)
    pool.restart(["u1", "lost"], 222)
    assert (pool.request("u1", 333), pool.request("lost", 333)) == (111, 222)
    held.go.set()
    found: dict[str, FetchedUser] = {}
    eventually(
        lambda: found.update(pool.poll([one for one in ("u1", "lost") if one not in found])) or len(found) == 2,
        "the fetches have come so far",
        10,
        0.002,
    )
    assert {user_id: one.profile_json for user_id, one in found.items()} == {"u1": b"u1", "lost": b"lost"}
    assert sorted(held.asked) == ["lost", "u1"]


def test_a_fetch_is_withdrawn_only_if_it_has_not_begun(held: HeldApi) -> None:
    pool = pool_of(held, 1)
    pool.request("running")
    eventually(lambda: held.asked == ["running"], "the fetches have come so far", 10, 0.002)
    pool.request("queued")
    assert [pool.withdraw(one) for one in ("running", "queued", "nobody")] == [False, True, True]
    held.go.set()
    assert pool.wait("running").profile_json == b"running"
    assert pool.wait("another").profile_json == b"another"
    assert held.asked == ["running", "another"]


def test_an_answer_that_waits_is_forgotten_with_its_user(held: HeldApi) -> None:
    held.go.set()
    pool = pool_of(held, 1)
    pool.request("u1")
    pool.wait("after it")
    pool.cancel("u1")
    assert take(pool, "u1") is None


def test_a_user_who_is_not_asked_for_may_be_cancelled(held: HeldApi) -> None:
    pool = pool_of(held, 1)
    pool.cancel("nobody")
    held.go.set()
    assert pool.wait("nobody").profile_json == b"nobody"


def test_users_cancelled_and_asked_for_from_many_threads_all_get_their_answer(held: HeldApi) -> None:
    held.go.set()
    pool = pool_of(held, 4)
    stop = threading.Event()

    def cancel() -> None:
        while not stop.is_set():
            for number in range(8):
                pool.cancel(f"u{number}")

    def ask(user_id: str) -> int:
        return sum(pool.wait(user_id).profile_json == user_id.encode() for _ in range(200))

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    with ThreadPoolExecutor(8) as asking:
        assert list(asking.map(ask, [f"u{number}" for number in range(8)])) == [200] * 8
    stop.set()
    cancelling.join(10)
    assert not pool._calls
