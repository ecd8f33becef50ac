from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import json
import random
import re
import socket
import ssl
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from tests.raw_http import RawServer, Send, certificate, ok, raw_server
from transforms.adapters.http.breaker import Breaker, Permit
from transforms.adapters.http.calls import CaFileError
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.secrets import TokenError
from transforms.adapters.user_api import fetch
from transforms.adapters.user_api.client import HttpUserApi, UserApiSettings
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser, unavailable
from transforms.domain.users.history import NO_ROWS, History, Row, sort_rows
from transforms.domain.users.visit import Visit

PROFILE = {"user_id": "u1", "country": "US"}
VISIT = {"visit_id": "v", "start_time": 5, "page_count": 2, "is_first_visit": True}
HISTORY = [{"event_id": "e1", "event_name": "n", "timestamp": 4, "platform": "ios", "other": 1}]
KNOWN: dict[str, Any] = {"profile": PROFILE, "visit": VISIT, "history": HISTORY}
ROWS = [Row(4, "e1", "n", {"platform": "ios"}, from_api=True)]
FOUND = FetchedUser("fetched", orjson.dumps(PROFILE), Visit("v", 5, 2, True), sort_rows(ROWS))


@pytest.fixture(autouse=True)
def _no_call_outlives_its_test() -> Iterator[None]:
    """A fetch that gives up does not wait for its calls; one of them must not reach the next test's server."""
    before = set(threading.enumerate())
    yield
    until, tries = time.monotonic() + 10, 0
    while [one for one in set(threading.enumerate()) - before if one.name.startswith("user-api")]:
        assert time.monotonic() < until
        tries += 1
        # Threads end when nobody holds their client any more, errors with their frames included. All that is young.
        gc.collect(2 if tries % 20 == 0 else 1)
        time.sleep(0.002)


def client(url: str, call_s: float = 2.0, deadline_s: float = 5.0, **more: Any) -> HttpUserApi:
    """One whose retries come at once, unless the server asks for a pause."""
    names = {"breaker", "clock", "io", "chance"} & set(more)
    injected = {"chance": lambda: 0.0} | {name: more.pop(name) for name in names}
    return HttpUserApi(UserApiSettings(url, call_s, **more), deadline_s, ("platform",), **injected)


def serve(server: HTTPServer, **answers: object) -> str:
    for what, default in KNOWN.items():
        answer = answers.get(what, default)
        body = answer if isinstance(answer, bytes) else b"" if isinstance(answer, int) else orjson.dumps(answer)
        status = answer if isinstance(answer, int) else 200
        server.expect_request(f"/users/u1/{what}").respond_with_data(body, status)
    return server.url_for("/")


def what_of(path: str) -> str:
    return path.rsplit("/", 1)[1]


def known(path: str, send: Send) -> None:
    send(ok(orjson.dumps(KNOWN[what_of(path)])))


def calls(server: HTTPServer) -> list[str]:
    return sorted(request.path for request, _ in server.log)


class FakeTime(IoThread):
    """A thread whose pauses end at once; the deadline never comes."""

    def __init__(self) -> None:
        super().__init__("user-api")
        self.now_s = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def later(self, pause_s: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        if callback.__name__ == "_end_late":
            return super().later(3600, lambda: None)
        self.pauses.append(pause_s)
        self.now_s += pause_s
        return super().later(0, callback, *args)


# What is asked and understood


def test_profile_visit_and_history_are_fetched(httpserver: HTTPServer) -> None:
    assert client(serve(httpserver)).fetch("u1") == FOUND
    assert calls(httpserver) == ["/users/u1/history", "/users/u1/profile", "/users/u1/visit"]


def test_a_profile_takes_no_more_memory_than_it_has_bytes(httpserver: HTTPServer) -> None:
    profile = {f"field_{number}": "x" * number for number in range(70)}
    api = client(serve(httpserver, profile=profile))
    api.fetch("u1")  # what is made once
    tracemalloc.start(1)
    try:
        kept = api.fetch("u1").profile_json
        assert orjson.loads(kept) == profile
        length, held = len(kept), tracemalloc.get_traced_memory()[0]
        del kept
        freed = held - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert length < freed < length + 100


def test_an_unknown_user_is_unknown(httpserver: HTTPServer) -> None:
    assert client(serve(httpserver, profile=404)).fetch("u1") == NOTHING_KNOWN


def test_of_an_unknown_user_only_the_profile_counts() -> None:
    others = threading.Semaphore(0)

    def answer(path: str, head: str, send: Send) -> None:
        if what_of(path) == "profile":
            assert others.acquire(timeout=10)
            assert others.acquire(timeout=10)
            send(ok(b"{}", status="404 X"))
        else:
            send(ok(b"", status="400 X"))
            others.release()

    with raw_server(answer) as server:
        assert client(server.url).fetch("u1") == NOTHING_KNOWN
        assert sorted(server.paths) == ["/users/u1/history", "/users/u1/profile", "/users/u1/visit"]


def test_a_user_whose_profile_is_null_is_unknown(httpserver: HTTPServer) -> None:
    assert client(serve(httpserver, profile=None)).fetch("u1") == NOTHING_KNOWN


@pytest.mark.parametrize("status", [404, 204])
def test_a_user_without_visit_and_history_is_known(httpserver: HTTPServer, status: int) -> None:
    found = client(serve(httpserver, visit=status, history=status)).fetch("u1")
    assert found == FetchedUser("fetched", orjson.dumps(PROFILE), None)


def test_numbers_of_an_answer_are_as_they_are(httpserver: HTTPServer) -> None:
    profile = b'{"account":18446744073709551616,"share":0.1,"floor":-0.0}'
    history = b'[{"event_id":"e","event_name":"n","timestamp":4.0,"platform":-9223372036854775809}]'
    visit = orjson.dumps(VISIT | {"start_time": 5.0, "page_count": 2e0})
    found = client(serve(httpserver, profile=profile, visit=visit, history=history)).fetch("u1")
    assert (found.profile_json, found.visit) == (profile, FOUND.visit)
    (row,) = found.history.rows()
    assert (row.timestamp_ms, str(row.public()["platform"])) == (4, "-9223372036854775809")


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"profile": b"not JSON"}, "profile: not JSON: "),
        ({"profile": b""}, "profile: not JSON: "),
        ({"profile": [1]}, "profile: a JSON list, allowed is an object"),
        ({"profile": False}, "profile: "),
        ({"profile": b'{"a":"\xff"}'}, "profile: not JSON: "),
        ({"profile": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"}, "profile: nested deeper than 100 levels"),
    ],
)
def test_an_answer_of_the_wrong_shape_is_unavailable(
    httpserver: HTTPServer, answers: dict[str, object], error: str
) -> None:
    if answers == {"profile": False}:
        answers = {"profile": b"false"}
    found = client(serve(httpserver, **answers)).fetch("u1")
    assert (found.enrichment, found.profile_json, found.visit, found.history) == ("unavailable", b"{}", None, NO_ROWS)
    assert found.error_kind == "bad_answer"
    assert found.error is not None
    assert found.error.startswith(error)
    assert len(found.error) < 200  # it holds nothing of the answer


@pytest.mark.parametrize(
    "visit",
    [
        *([], {}, b"5", VISIT | {"visit_id": {}}, VISIT | {"start_time": "1" * 5000}, VISIT | {"page_count": None}),
        *(VISIT | {"page_count": True}, VISIT | {"is_first_visit": "no"}, VISIT | {"start_time": 1e300}),
        *(VISIT | {"start_time": -(2**53) - 1}, VISIT | {"start_time": 5.5}, b"not JSON", b"", b"[" * 5000),
    ],
)
def test_a_visit_that_cannot_be_used_costs_nothing_else(httpserver: HTTPServer, visit: object) -> None:
    found = client(serve(httpserver, visit=visit)).fetch("u1")
    assert found == replace(FOUND, visit=None, problems=found.problems)
    assert [problem.partition(":")[0] for problem in found.problems] == ["visit"]


@pytest.mark.parametrize("history", [{"a": 1}, "", b"5", b"not JSON", b"", b"[" * 5000, b'[{"event_id":"\xff"}]'])
@pytest.mark.parametrize("fields", [(), ("platform",)])
def test_a_history_that_cannot_be_used_costs_nothing_else(
    httpserver: HTTPServer, history: object, fields: tuple[str, ...]
) -> None:
    api = HttpUserApi(UserApiSettings(serve(httpserver, history=history)), 5.0, fields)
    found = api.fetch("u1")
    assert found == replace(FOUND, history=NO_ROWS, problems=found.problems)
    assert [problem.partition(":")[0] for problem in found.problems] == ["history"]


@pytest.mark.parametrize(
    "row",
    [
        *({}, None, 5, [], HISTORY[0] | {"event_name": 5}, HISTORY[0] | {"timestamp": 2**60}),
        *(HISTORY[0] | {"timestamp": "5"}, HISTORY[0] | {"timestamp": True}, HISTORY[0] | {"timestamp": 1.5}),
        {"event_id": "x"},
    ],
)
@pytest.mark.parametrize("fields", [(), ("platform",)])
def test_a_row_that_cannot_be_used_costs_no_other_row(
    httpserver: HTTPServer, row: object, fields: tuple[str, ...]
) -> None:
    api = HttpUserApi(UserApiSettings(serve(httpserver, history=[row, HISTORY[0], row])), 5.0, fields)
    found = api.fetch("u1")
    assert [past.event_id for past in found.history.rows()] == ["e1"]
    assert len(found.problems) == 1


@pytest.mark.parametrize("fields", [(), ("platform",)])
def test_a_whole_number_may_be_written_with_a_point(httpserver: HTTPServer, fields: tuple[str, ...]) -> None:
    history = [HISTORY[0] | {"timestamp": 1704067000000.0}]
    url = serve(httpserver, history=history, visit=VISIT | {"start_time": 1704067000000.0, "page_count": 2.0})
    found = HttpUserApi(UserApiSettings(url), 5.0, fields).fetch("u1")
    assert found.visit == Visit("v", 1704067000000, 2, True)
    assert [past.timestamp_ms for past in found.history.rows()] == [1704067000000]
    assert type(found.history.rows()[0].timestamp_ms) is int


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NUMBER = st.integers(-(2**54), 2**54) | ANYTHING
TEXT = st.text() | ANYTHING
VISITS = st.fixed_dictionaries(
    {"visit_id": TEXT, "start_time": NUMBER, "page_count": NUMBER, "is_first_visit": st.booleans() | ANYTHING}
)
PAST = st.fixed_dictionaries({"event_id": TEXT, "event_name": TEXT, "timestamp": NUMBER}, optional={"platform": TEXT})
HISTORIES = st.lists(PAST | ANYTHING, max_size=3)


def body_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON as the standard library writes it, NaN and lone surrogates included, sometimes cut off; and noise."""
    whole = values.map(json.dumps).map(str.encode)
    return whole | st.tuples(whole, st.integers(0, 20)).map(lambda cut: cut[0][: cut[1]]) | st.binary(max_size=20)


@pytest.mark.slow
def test_whatever_the_bodies_are_the_user_is_known_or_unknown_or_unavailable_with_a_reason() -> None:
    bodies: dict[str, bytes] = {}
    seen: Counter[str] = Counter()

    def answer(path: str, head: str, send: Send) -> None:
        send(ok(bodies[what_of(path)]))

    with raw_server(answer) as server:
        api = client(server.url, concurrency=3)

        @settings(max_examples=300, deadline=None, database=None)
        @given(profile=body_of(ANYTHING), visit=body_of(VISITS | ANYTHING), history=body_of(HISTORIES | ANYTHING))
        @example(orjson.dumps(PROFILE), orjson.dumps(VISIT), orjson.dumps(HISTORY))
        def check(profile: bytes, visit: bytes, history: bytes) -> None:
            bodies.update(profile=profile, visit=visit, history=history)
            found = api.fetch("u1")
            seen[found.enrichment] += 1
            if found.enrichment == "unavailable":
                assert found.error_kind == "bad_answer"
                assert found.error
                assert found.error.startswith("profile: ")
                assert len(found.error) < 200
                assert (found.profile_json, found.visit, found.history) == (b"{}", None, NO_ROWS)
            elif found.enrichment == "unknown":
                assert orjson.loads(profile) is None
            else:
                assert orjson.loads(found.profile_json) == orjson.loads(profile)
                # What state and actions do with it.
                kept = History(100)
                kept.merge(found.history.rows())
                public = {
                    "visit": found.visit and found.visit.public(),
                    "history": [row.public() for row in kept.rows()],
                }
                assert orjson.loads(orjson.dumps(public)) == public
                assert public["visit"] is None or public["visit"] == orjson.loads(visit)

        check()
    assert seen.keys() == {"fetched", "unknown", "unavailable"}


def test_an_answer_that_is_too_large_is_unavailable(httpserver: HTTPServer) -> None:
    url = serve(httpserver, history=[HISTORY[0] | {"event_id": "x" * 3000}])
    found = client(url, max_answer_bytes=2000).fetch("u1")
    assert (found.error_kind, found.error) == ("too_large", "history: over 2000 bytes")


@pytest.mark.parametrize("status", [301, 400, 401, 403, 410])
def test_a_lasting_failure_is_not_tried_again(httpserver: HTTPServer, status: int) -> None:
    found = client(serve(httpserver, visit=status)).fetch("u1")
    assert (found.error_kind, found.error) == ("status", f"visit: HTTP {status}")
    assert calls(httpserver).count("/users/u1/visit") == 1


@pytest.mark.parametrize(
    ("user_id", "path"),
    [
        ("a b/c?d#e", "/users/a b/c?d#e/profile"),
        ("ü😀", "/users/ü😀/profile"),
        ("100%", "/users/100%/profile"),
        ("a..b", "/users/a..b/profile"),
        ("../admin", "/users/../admin/profile"),
        ("a%2Fb%2e%2e", "/users/a%2Fb%2e%2e/profile"),
        ("%2e%2e", "/users/%2e%2e/profile"),
        ("+&=;:@,$!*'()[]", "/users/+&=;:@,$!*'()[]/profile"),
        ("a\\b\t\r\n\x00", "/users/a\\b\t\r\n\x00/profile"),
    ],
)
def test_a_user_is_one_segment_of_the_path_whatever_its_name(httpserver: HTTPServer, user_id: str, path: str) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data(status=404)
    assert client(httpserver.url_for("/")).fetch(user_id) == NOTHING_KNOWN
    assert path in calls(httpserver)
    assert {request.environ["REQUEST_URI"].count("/") for request, _ in httpserver.log} == {3}


@pytest.mark.parametrize("user_id", [".", ".."])
def test_a_user_that_would_be_another_path_is_not_asked_for(httpserver: HTTPServer, user_id: str) -> None:
    assert client(httpserver.url_for("/")).fetch(user_id) == NOTHING_KNOWN
    assert calls(httpserver) == []


# At a time


def test_the_three_calls_of_a_user_are_on_their_way_together() -> None:
    together = threading.Barrier(3)

    def answer(path: str, head: str, send: Send) -> None:
        together.wait(10)
        known(path, send)

    with raw_server(answer) as server:
        assert client(server.url, concurrency=3).fetch("u1") == FOUND


def test_no_more_users_than_allowed_have_calls_on_their_way_however_many_are_fetched() -> None:
    lock, now, most = threading.Lock(), Counter[str](), [0]

    def answer(path: str, head: str, send: Send) -> None:
        user = path.split("/")[2]
        with lock:
            now[user] += 1
            most[0] = max(most[0], len(+now))
        time.sleep(0.005)  # so that calls overlap if they may
        with lock:
            now[user] -= 1
        known(path, send)

    with raw_server(answer) as server:
        pool = FetchPool(client(server.url, concurrency=4))
        users = [f"u{number}" for number in range(20)]
        for user in users:
            pool.request(user)
        assert [pool.wait(user) for user in users] == [FOUND] * 20
    assert 2 <= most[0] <= 4
    assert len(server.paths) == 60


def test_a_call_that_pauses_holds_up_no_other_call() -> None:
    failed = threading.Event()

    def answer(path: str, head: str, send: Send) -> None:
        if path == "/users/waiting/profile" and not failed.is_set():
            failed.set()
            send(ok(b"", "Retry-After: 1", status="503 X"))
        else:
            known(path, send)

    with raw_server(answer) as server, ThreadPoolExecutor(1) as other:
        api = client(server.url, concurrency=1)
        waiting = other.submit(api.fetch, "waiting")
        assert failed.wait(10)
        assert api.fetch("u1") == FOUND
        assert not waiting.done()
        assert waiting.result(10) == FOUND


# Tries


def failing(times: int, failure: bytes) -> tuple[Callable[[str, str, Send], None], Counter[str]]:
    """Answers each call with ``failure`` so many times, then as it should."""
    tries: Counter[str] = Counter()

    def answer(path: str, head: str, send: Send) -> None:
        tries[what_of(path)] += 1
        if tries[what_of(path)] <= times:
            send(failure)
        else:
            known(path, send)

    return answer, tries


@pytest.mark.parametrize(
    "failure",
    [
        *(ok(b"", status=f"{status} X") for status in (408, 429, 500, 502, 503, 504, 520)),
        ok(orjson.dumps(PROFILE))[:-3],
        b"HTTP/1.1 200 OK\r\nContent-",
        b"",
    ],
)
def test_a_passing_failure_is_tried_again(failure: bytes) -> None:
    answer, tries = failing(2, failure)
    with raw_server(answer) as server:
        assert client(server.url).fetch("u1") == FOUND
    assert tries == {"profile": 3, "visit": 3, "history": 3}


def test_a_call_that_takes_too_long_is_given_up_and_tried_again() -> None:
    tries: Counter[str] = Counter()
    servers: list[RawServer] = []

    def answer(path: str, head: str, send: Send) -> None:
        tries[path] += 1
        if what_of(path) == "visit" and tries[path] == 1:
            servers[0].ended.wait(10)
        known(path, send)

    with raw_server(answer) as server:
        servers.append(server)
        assert client(server.url, call_s=0.2).fetch("u1") == FOUND
    assert tries == {"/users/u1/profile": 1, "/users/u1/visit": 2, "/users/u1/history": 1}


def test_pauses_grow_until_the_deadline_leaves_no_time_for_another_try(httpserver: HTTPServer) -> None:
    fake = FakeTime()
    url = serve(httpserver, profile=503)
    api = client(url, clock=fake.clock, io=fake, chance=lambda: 1.0, deadline_s=10.0)
    found = api.fetch("u1")
    assert (found.error_kind, found.error) == ("status", "profile: HTTP 503")
    assert [round(pause, 6) for pause in fake.pauses] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert Counter(calls(httpserver)) == {"/users/u1/profile": 9, "/users/u1/visit": 1, "/users/u1/history": 1}


@pytest.mark.parametrize(("after", "pauses"), [("3", [3.0] * 3), ("9", [9.0]), ("11", []), ("86400", [])])
def test_retry_after_is_honoured_and_never_beyond_the_deadline(
    httpserver: HTTPServer, after: str, pauses: list[float]
) -> None:
    fake = FakeTime()
    httpserver.expect_request("/users/u1/profile").respond_with_data(b"", 429, {"Retry-After": after})
    api = client(serve(httpserver), clock=fake.clock, io=fake, deadline_s=10.0)
    found = api.fetch("u1")
    assert (found.error_kind, found.error) == ("status", "profile: HTTP 429")
    assert fake.pauses == pauses
    assert calls(httpserver).count("/users/u1/profile") == len(pauses) + 1


@pytest.mark.parametrize("within", ["headers", "body"])
def test_the_deadline_ends_a_fetch_whose_answer_drips(within: str) -> None:
    servers: list[RawServer] = []

    def answer(path: str, head: str, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if within == "body" else b"X: "))
        while not servers[0].ended.wait(0.02):
            send(b" ")

    with raw_server(answer) as server:
        servers.append(server)
        began = time.monotonic()
        found = client(server.url, deadline_s=0.3).fetch("u1")
        assert 0.25 < time.monotonic() - began < 1.5
    assert (found.enrichment, found.error_kind) == ("unavailable", "timeout")


def test_a_port_without_a_listener_is_unavailable() -> None:
    with raw_server(lambda path, head, send: None) as server:
        pass
    found = client(server.url, deadline_s=0.2, chance=lambda: 1.0).fetch("u1")
    assert (found.enrichment, found.error_kind) == ("unavailable", "connection")


# Breaker


DOWN: dict[str, Callable[[Send], None]] = {
    "500": lambda send: send(ok(b"", status="500 X")),
    "503 for a while": lambda send: send(ok(b"", "Retry-After: 1", status="503 X")),
    "429": lambda send: send(ok(b"", status="429 X")),
    "hangs up": lambda send: None,
}


@pytest.mark.parametrize("answer", DOWN.values(), ids=DOWN)
def test_twenty_failed_calls_open_the_breaker_and_none_follows(answer: Callable[[Send], None]) -> None:
    with raw_server(lambda path, head, send: answer(send)) as server:
        # One user at a time and a breaker whose pause does not end.
        breaker = Breaker(first_pause_s=60.0, longest_pause_s=60.0)
        pool = FetchPool(client(server.url, concurrency=1, breaker=breaker))
        users = [f"u{number}" for number in range(100)]
        for user in users:
            pool.request(user)
        began = time.monotonic()
        found = [pool.wait(user) for user in users]
        assert time.monotonic() - began < 4  # where each alone would try for 5 s
        assert breaker.is_open
        assert 20 <= len(server.paths) <= 22
    kinds = Counter(one.error_kind for one in found)
    assert kinds.keys() <= {"status", "connection", "breaker_open"}
    assert kinds["breaker_open"] >= 80


class RecordingBreaker(Breaker):
    """Knows of every call: each begins with a permit."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: list[tuple[Permit, float]] = []

    def enter(self) -> Permit | None:
        permit = super().enter()
        if permit is not None:
            self.entered.append((permit, time.monotonic()))
        return permit


@pytest.mark.slow
@pytest.mark.parametrize("down", ["500", "refuses"])
def test_an_api_that_is_down_sees_a_burst_and_then_two_calls_a_second_from_however_many_fetches(down: str) -> None:
    breaker = RecordingBreaker()
    with raw_server(lambda path, head, send: send(ok(b"", status="500 X"))) as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        refusing = f"http://127.0.0.1:{taken.getsockname()[1]}"
        api = client(server.url if down == "500" else refusing, breaker=breaker, chance=random.random, concurrency=10)
        pool = FetchPool(api)
        users = [f"u{number}" for number in range(2000)]
        for user in users:
            pool.request(user)
        kinds = Counter(pool.wait(user).error_kind for user in users)
        if down == "500":
            assert len(server.paths) == len(breaker.entered)
    burst = [at_s for permit, at_s in breaker.entered if permit is Permit.NORMAL]
    probes = [at_s for permit, at_s in breaker.entered if permit is Permit.PROBE]
    # 20 in a row, and what was on its way beside the last of them.
    assert len(burst) <= 20 + 29
    assert 1 <= len(probes) <= 4  # after 0.5, 1.5 and 3.5 s, when those who wait give up
    assert all(later - earlier > 0.4 for earlier, later in itertools.pairwise([burst[-1], *probes]))
    assert set(kinds) <= {"breaker_open", "timeout", "status" if down == "500" else "connection"}
    assert kinds["breaker_open"] > 1900


def test_fetches_outwait_the_breaker_s_first_pauses() -> None:
    count, lock = itertools.count(), threading.Lock()

    def answer(path: str, head: str, send: Send) -> None:
        with lock:
            number = next(count)
        send(b"" if number < 25 else ok(orjson.dumps(KNOWN[what_of(path)])))

    breaker = Breaker()
    with raw_server(answer) as server:
        pool = FetchPool(client(server.url, breaker=breaker))
        users = [f"u{number}" for number in range(50)]
        for user in users:
            pool.request(user)
        assert [pool.wait(user) for user in users] == [FOUND] * 50
    assert not breaker.is_open


def test_one_moment_in_which_fewer_than_twenty_calls_fail_is_got_over() -> None:
    lock, count, together = threading.Lock(), itertools.count(), threading.Barrier(32)

    def answer(path: str, head: str, send: Send) -> None:
        with lock:
            number = next(count)
        if number < 32:
            together.wait(10)  # all of them are on their way
        send(b"" if number < 19 else ok(orjson.dumps(KNOWN[what_of(path)])))

    with raw_server(answer) as server:
        breaker = Breaker()
        pool = FetchPool(client(server.url, breaker=breaker, chance=random.random))
        users = [f"u{number}" for number in range(32)]
        for user in users:
            pool.request(user)
        assert [pool.wait(user) for user in users] == [FOUND] * 32
        assert not breaker.is_open


def test_an_open_breaker_lets_one_probe_through_a_pause(httpserver: HTTPServer) -> None:
    fake = FakeTime()
    url = serve(httpserver, profile=503, visit=503, history=503)
    breaker = opened(Breaker(first_pause_s=4.0, clock=fake.clock))
    api = client(url, clock=fake.clock, io=fake, breaker=breaker)
    opened_s = fake.now_s
    kinds: Counter[str | None] = Counter()
    while fake.now_s < opened_s + 60:
        kinds[api.fetch("u1").error_kind] += 1
        fake.now_s += 0.25
    assert kinds == {"breaker_open": 234, "status": 6}  # after 4, 12, 22, 32, 42 and 52 s
    assert calls(httpserver) == ["/users/u1/profile"] * 6


def opened(breaker: Breaker) -> Breaker:
    while not breaker.is_open:
        permit = breaker.enter()
        assert permit is not None
        breaker.leave(permit, healthy=False)
    return breaker


def test_a_probe_that_succeeds_closes_the_breaker_and_is_the_user_s_answer(httpserver: HTTPServer) -> None:
    fake = FakeTime()
    breaker = opened(Breaker(first_pause_s=4.0, clock=fake.clock))
    api = client(serve(httpserver), breaker=breaker)
    assert api.fetch("u1").error == "breaker open"
    fake.now_s += 4.0
    assert api.fetch("u1") == FOUND
    assert not breaker.is_open


def test_users_who_wait_for_their_turn_are_not_asked_for_once_the_breaker_is_open() -> None:
    began, go = threading.Event(), threading.Event()

    def answer(path: str, head: str, send: Send) -> None:
        began.set()
        go.wait(10)
        send(ok(b"", status="500 X"))

    with raw_server(answer) as server:
        breaker = Breaker(first_pause_s=60.0, longest_pause_s=60.0)
        api = client(server.url, concurrency=1, breaker=breaker)
        fetching = [api.start(user) for user in ("u1", "u2")]
        assert began.wait(10)
        opened(breaker)
        go.set()
        assert [fetch.result(10).enrichment for fetch in fetching] == ["unavailable"] * 2
        assert {path.split("/")[2] for path in server.paths} == {"u1"}


@pytest.mark.parametrize(
    ("answer", "opens"),
    [(b"not JSON", False), (400, False), (401, False), (403, False), (404, False), (408, False), (429, True)],
)
def test_an_answer_that_is_wrong_for_one_user_does_not_open_the_breaker(
    httpserver: HTTPServer, answer: object, opens: bool
) -> None:
    breaker = Breaker(failures=1)
    client(serve(httpserver, profile=answer), breaker=breaker, deadline_s=1.0, chance=lambda: 1.0).fetch("u1")
    assert breaker.is_open is opens


def test_a_fetch_is_refused_at_once_though_every_turn_is_taken() -> None:
    breaker = opened(Breaker(first_pause_s=60.0, longest_pause_s=60.0))
    api = client("http://127.0.0.1:1", concurrency=0, breaker=breaker, deadline_s=60.0)
    assert api.start("u1").result(10).error == "breaker open"


def test_a_call_whose_turn_comes_too_late_is_not_made(httpserver: HTTPServer) -> None:
    api = client(serve(httpserver), concurrency=0, deadline_s=0.1)
    found = api.fetch("u1")
    assert (found.error_kind, found.error) == ("timeout", "profile: no answer within 0.1 s")
    assert calls(httpserver) == []


def test_a_fetch_that_is_cancelled_before_its_turn_makes_no_call(httpserver: HTTPServer) -> None:
    api = client(serve(httpserver), concurrency=0)
    fetching = api.start("u1")
    assert fetching.cancel()
    api._io.submit(setattr, api, "_room", 1)
    assert api.fetch("u1") == FOUND
    assert len(calls(httpserver)) == 3


# Servers as they are


def test_a_kept_connection_that_the_server_has_closed_costs_nothing() -> None:
    breaker = RecordingBreaker()
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"  # it says nothing of closing, and closes

    def answer(path: str, head: str, send: Send) -> None:
        body = orjson.dumps(KNOWN[what_of(path)])
        send(closing % (len(body), body))

    with raw_server(answer) as server:
        api = client(server.url, breaker=breaker)
        for _ in range(14):
            assert api.fetch("u1") == FOUND
    assert len(breaker.entered) == 14 * 3
    assert not breaker._failures


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"{}", "X-Long: " + "y" * 80_000),
        ok(b"{}", *("X-Many: y" for _ in range(9000))),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        ok(b"\x1f\x8bnot gzip", "Content-Encoding: gzip"),
        ok(b"\x00" * 10),
    ],
)
def test_an_answer_that_cannot_be_used_is_that_user_s_alone(answer: bytes) -> None:
    breaker = RecordingBreaker()
    with raw_server(lambda path, head, send: send(answer if "/u1/profile" in path else ok_of(path))) as server:
        api = client(server.url, breaker=breaker)
        found = api.fetch("u1")
        assert (found.enrichment, found.error_kind) == ("unavailable", "bad_answer")
        assert api.fetch("u2") == FOUND
    assert len(breaker.entered) == 6  # none is repeated
    assert not breaker._failures


def ok_of(path: str) -> bytes:
    return ok(orjson.dumps(KNOWN[what_of(path)]))


def test_an_answer_in_gzip_is_read_and_one_that_ends_early_is_fetched_again() -> None:
    tries: Counter[str] = Counter()

    def answer(path: str, head: str, send: Send) -> None:
        tries[path] += 1
        packed = gzip.compress(orjson.dumps(KNOWN[what_of(path)]))
        send(ok(packed if tries[path] > 1 else packed[:-9], "Content-Encoding: gzip"))

    with raw_server(answer) as server:
        assert client(server.url).fetch("u1") == FOUND
    assert set(tries.values()) == {2}


def test_an_error_of_ours_is_an_unavailable_user(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> FetchedUser:
        raise LookupError("no such thing")

    api = client(serve(httpserver), concurrency=1)
    monkeypatch.setattr(fetch, "fetched_user", broken)
    assert api.fetch("u1") == unavailable("other", "LookupError: no such thing")
    monkeypatch.undo()
    assert api.fetch("u1") == FOUND


def test_one_document_has_everything() -> None:
    paths: list[str] = []

    def answer(path: str, head: str, send: Send) -> None:
        paths.append(path)
        send(ok(orjson.dumps(KNOWN if path.endswith("u1") else {"profile": PROFILE} if path.endswith("u2") else None)))

    with raw_server(answer) as server:
        api = client(server.url, layout="one")
        assert api.fetch("u1") == FOUND
        assert api.fetch("u2") == replace(FOUND, visit=None, history=NO_ROWS)
        assert api.fetch("u3") == NOTHING_KNOWN
    assert paths == ["/users/u1", "/users/u2", "/users/u3"]


# TLS and token


def test_a_ca_of_one_s_own_vouches_for_the_api(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with raw_server(lambda path, head, send: known(path, send), context) as server:
        assert client(server.url, ca_file=str(path)).fetch("u1") == FOUND
        found = client(server.url).fetch("u1")
    assert found.error_kind == "connection"
    assert re.fullmatch("(profile|visit|history): SSL certificate .*: self-signed certificate .*", found.error or "")


def test_a_missing_ca_file_is_an_error_when_the_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(CaFileError, match="none: No such file"):
        client("https://127.0.0.1:1", ca_file=f"{tmp_path}/none")


def asks_for(token: str) -> tuple[Callable[[str, str, Send], None], list[str]]:
    seen: list[str] = []

    def answer(path: str, head: str, send: Send) -> None:
        (given,) = re.findall(r"Authorization: (.*)\r\n", head)
        seen.append(given)
        if given == f"Bearer {token}":
            known(path, send)
        else:
            send(ok(b"", status="401 X"))

    return answer, seen


def test_calls_carry_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "s3cr3t")
    answer, seen = asks_for("s3cr3t")
    with raw_server(answer) as server:
        assert client(server.url, token="env:API_TOKEN").fetch("u1") == FOUND
    assert seen == ["Bearer s3cr3t"] * 3


def test_a_token_that_was_replaced_is_read_again_on_401(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    answer, seen = asks_for("new")
    with raw_server(answer) as server:
        api = client(server.url, token=f"file:{path}")
        path.write_text("new")
        assert api.fetch("u1") == FOUND
        assert api.fetch("u1") == FOUND
    assert seen.count("Bearer new") == 6
    assert 1 <= seen.count("Bearer old") <= 3


def test_a_token_that_is_refused_again_or_is_still_the_same_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cr3t-1")
    answer, seen = asks_for("another")
    with raw_server(answer) as server:
        api = client(server.url, token=f"file:{path}")
        same = api.fetch("u1")
        assert len(seen) <= 3
        path.write_text("s3cr3t-2")
        replaced = api.fetch("u1")
        assert len(seen) <= 12
    for found in (same, replaced):
        assert found.error_kind == "status"
        assert found.error is not None
        assert found.error.endswith(": HTTP 401")
        assert "s3cr3t" not in repr(found)
    assert "s3cr3t" not in repr(api) + repr(vars(api))


def test_a_missing_token_is_an_error_when_the_worker_starts(tmp_path: Path) -> None:
    settings = UserApiSettings("http://127.0.0.1:1", token=f"file:{tmp_path}/none")
    with pytest.raises(TokenError, match="none: No such file"):
        HttpUserApi(settings, 1.0)
    assert HttpUserApi(replace(settings, token=None), 1.0)._token is None


def test_fields_that_a_later_rule_set_reads_are_kept_of_later_answers(httpserver: HTTPServer) -> None:
    url, fields = serve(httpserver), list[str]()
    pool = FetchPool(HttpUserApi(UserApiSettings(url, 2.0), 5.0, fields))
    assert [row.extra for row in pool.wait("u1").history.rows()] == [None]
    fields.append("other")
    assert [row.extra for row in pool.wait("u1").history.rows()] == [{"other": 1}]
