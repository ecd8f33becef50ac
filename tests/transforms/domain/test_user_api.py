from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from pytest_httpserver import HTTPServer

from tests.raw_http import RawServer, Send, ok, raw_server
from transforms.domain.breaker import Breaker
from transforms.domain.profiles import NOTHING_KNOWN, FetchedUser, FetchPool
from transforms.domain.tokens import TokenError
from transforms.domain.user_api import HttpUserApi, UserApiSettings
from transforms.domain.users import Visit

PROFILE = {"user_id": "u1", "country": "US"}
VISIT = {"visit_id": "v", "start_time": 5, "page_count": 2, "is_first_visit": True}
HISTORY = [{"event_id": "e1", "event_name": "n", "timestamp": 4, "platform": "ios", "other": 1}]
KNOWN: dict[str, Any] = {"profile": PROFILE, "visit": VISIT, "history": HISTORY}
FOUND = FetchedUser("fetched", orjson.dumps(PROFILE), Visit("v", 5, 2, True), [(4, "e1", "n", {"platform": "ios"})])


def client(url: str, call_s: float = 2.0, deadline_s: float = 5.0, **more: Any) -> HttpUserApi:
    """One whose retries come at once, unless the server asks for a pause."""
    names = {"breaker", "clock", "sleep", "chance"} & set(more)
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


@dataclass
class FakeTime:
    """Monotonic time that passes only in pauses."""

    now_s: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s


# What is asked and understood


def test_profile_visit_and_history_are_fetched(httpserver: HTTPServer) -> None:
    assert client(serve(httpserver)).fetch("u1") == FOUND
    assert calls(httpserver) == ["/users/u1/history", "/users/u1/profile", "/users/u1/visit"]


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


def test_a_user_without_visit_and_history_is_known(httpserver: HTTPServer) -> None:
    found = client(serve(httpserver, visit=404, history=404)).fetch("u1")
    assert found == FetchedUser("fetched", orjson.dumps(PROFILE), None, [])


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"profile": b"not JSON"}, "profile: not JSON: "),
        ({"profile": b""}, "profile: not JSON: "),
        ({"profile": [1]}, "profile: a JSON list, allowed is an object"),
        ({"profile": False}, "profile: "),
        ({"profile": b'{"a":"\xff"}'}, "profile: not JSON: "),
        ({"profile": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"}, "profile: nested deeper than 100 levels"),
        ({"visit": []}, "visit: TypeError"),
        ({"visit": {}}, "visit: KeyError"),
        ({"visit": VISIT | {"start_time": "noon"}}, "visit: ValueError"),
        ({"visit": VISIT | {"page_count": None}}, "visit: TypeError"),
        ({"visit": VISIT | {"start_time": 1e300}}, "visit: ValueError beyond 2\\*\\*53"),
        ({"history": {"a": 1}}, "history: a JSON dict, allowed is an array"),
        ({"history": ""}, "history: a JSON str, allowed is an array"),
        ({"history": [{}]}, "history: KeyError"),
        ({"history": [None]}, "history: TypeError"),
        ({"history": [HISTORY[0] | {"timestamp": 2**60}]}, "history: ValueError beyond 2\\*\\*53"),
        ({"history": b"[" * 5000}, "history: not JSON: "),
    ],
)
def test_an_answer_of_the_wrong_shape_is_unavailable(
    httpserver: HTTPServer, answers: dict[str, object], error: str
) -> None:
    if answers == {"profile": False}:
        answers = {"profile": b"false"}
    found = client(serve(httpserver, **answers)).fetch("u1")
    assert (found.enrichment, found.profile_json, found.visit, found.history) == ("unavailable", b"{}", None, [])
    assert found.error_kind == "bad_answer"
    assert found.error is not None
    assert re.match(error, found.error), found.error


def test_an_answer_that_is_too_large_is_unavailable(httpserver: HTTPServer) -> None:
    url = serve(httpserver, history=[HISTORY[0] | {"event_id": "x" * 3000}])
    found = client(url, max_answer_bytes=2000).fetch("u1")
    assert (found.error_kind, found.error) == ("too_large", "history: over 2000 bytes")


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 410])
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


def test_no_more_calls_than_allowed_are_on_their_way_however_many_users_are_fetched() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def answer(path: str, head: str, send: Send) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)  # so that calls overlap if they may
        with lock:
            now[0] -= 1
        known(path, send)

    with raw_server(answer) as server:
        pool = FetchPool(client(server.url, concurrency=4), 4)
        users = [f"u{number}" for number in range(20)]
        for user in users:
            pool.request(user)
        assert [pool.wait(user) for user in users] == [FOUND] * 20
    assert most[0] == 4
    assert len(server.paths) == 60


def test_a_call_that_pauses_holds_up_nobody_else() -> None:
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
    api = client(url, clock=fake.clock, sleep=fake.sleep, chance=lambda: 1.0, deadline_s=10.0)
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
    api = client(serve(httpserver), clock=fake.clock, sleep=fake.sleep, deadline_s=10.0)
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


def test_nobody_listening_is_unavailable() -> None:
    with raw_server(lambda path, head, send: None) as server:
        pass
    found = client(server.url, deadline_s=0.2, chance=lambda: 1.0).fetch("u1")
    assert (found.enrichment, found.error_kind) == ("unavailable", "connection")


# Breaker


def test_an_api_that_is_down_is_asked_once_a_pause(httpserver: HTTPServer) -> None:
    fake = FakeTime()
    url = serve(httpserver, profile=503, visit=503, history=503)
    injected = {"clock": fake.clock, "sleep": fake.sleep, "breaker": Breaker(clock=fake.clock)}
    api = client(url, deadline_s=0.1, chance=lambda: 1.0, concurrency=1, **injected)
    for _ in range(10):
        assert api.fetch("u1").error_kind == "status"
    api._executor.submit(int).result(10)  # no call is on its way any more
    before = len(httpserver.log)
    opened_s = fake.now_s
    kinds: Counter[str | None] = Counter()
    while fake.now_s < opened_s + 60:
        kinds[api.fetch("u1").error_kind] += 1
        fake.now_s += 0.25
    assert kinds == {"breaker_open": 235, "status": 5}  # after 1, 3, 7, 15 and 31 s
    assert len(httpserver.log) - before == 5


def test_a_probe_that_succeeds_closes_the_breaker_and_is_the_user_s_answer(httpserver: HTTPServer) -> None:
    fake = FakeTime()
    breaker = Breaker(failures=1, clock=fake.clock)
    url = serve(httpserver, profile=503)
    api = client(url, clock=fake.clock, sleep=fake.sleep, deadline_s=0.1, chance=lambda: 1.0, breaker=breaker)
    assert api.fetch("u1").error_kind == "status"
    assert api.fetch("u1").error == "breaker open"
    httpserver.clear()
    serve(httpserver)
    fake.now_s += 1
    assert api.fetch("u1") == FOUND
    assert not breaker.is_open


def test_a_fetch_under_way_stops_trying_when_the_breaker_opens(httpserver: HTTPServer) -> None:
    breaker = Breaker(failures=1)
    url = serve(httpserver, profile=503)
    api = client(url, breaker=breaker, chance=lambda: 1.0, sleep=lambda _: breaker.leave(breaker.enter(), False))  # type: ignore[arg-type]
    assert api.fetch("u1").error_kind == "status"
    assert calls(httpserver).count("/users/u1/profile") == 2


@pytest.mark.parametrize(("answer", "opens"), [(b"not JSON", False), (400, False), (403, True)])
def test_an_answer_that_is_wrong_for_one_user_does_not_open_the_breaker(
    httpserver: HTTPServer, answer: object, opens: bool
) -> None:
    breaker = Breaker(failures=1)
    assert client(serve(httpserver, profile=answer), breaker=breaker).fetch("u1").enrichment == "unavailable"
    assert breaker.is_open is opens


# Token


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


def test_a_token_that_is_not_there_is_told_when_the_worker_starts(tmp_path: Path) -> None:
    settings = UserApiSettings("http://127.0.0.1:1", token=f"file:{tmp_path}/none")
    with pytest.raises(TokenError, match="none: No such file"):
        HttpUserApi(settings, 1.0)
    assert HttpUserApi(replace(settings, token=None), 1.0)._token is None
