from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator

import orjson
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from transforms.domain import profiles
from transforms.domain.profiles import (
    NOTHING_KNOWN,
    FetchedUser,
    FetchPool,
    HttpUserApi,
    NoUserApi,
    shared_pool,
    unavailable,
)
from transforms.domain.users import Visit

PROFILE = {"user_id": "u1", "country": "US"}
VISIT = {"visit_id": "v", "start_time": 5, "page_count": 2, "is_first_visit": True}
HISTORY = [{"event_id": "e1", "event_name": "n", "timestamp": 4, "platform": "ios", "other": 1}]


def client(server: HTTPServer, call_s: float = 1.0, deadline_s: float = 3.0) -> HttpUserApi:
    return HttpUserApi(server.url_for("/"), call_s, deadline_s, 4, ("platform",))


def serve(server: HTTPServer, user: str = "u1", **answers: object) -> None:
    for what, default in (("profile", PROFILE), ("visit", VISIT), ("history", HISTORY)):
        answer = answers.get(what, default)
        path = f"/users/{user}/{what}"
        if isinstance(answer, int):
            server.expect_request(path).respond_with_data(status=answer)
        elif isinstance(answer, bytes):
            server.expect_request(path).respond_with_data(answer)
        else:
            server.expect_request(path).respond_with_data(orjson.dumps(answer))


def calls(server: HTTPServer) -> list[str]:
    return [request.path for request, _ in server.log]


def test_profile_visit_and_history_are_fetched(httpserver: HTTPServer) -> None:
    serve(httpserver)
    found = client(httpserver).fetch("u1")
    assert found == FetchedUser(
        "fetched", orjson.dumps(PROFILE), Visit("v", 5, 2, True), [(4, "e1", "n", {"platform": "ios"})]
    )
    assert sorted(calls(httpserver)) == ["/users/u1/history", "/users/u1/profile", "/users/u1/visit"]


def test_an_unknown_user_is_unknown(httpserver: HTTPServer) -> None:
    serve(httpserver, profile=404)
    assert client(httpserver).fetch("u1") == NOTHING_KNOWN


def test_a_user_without_visit_and_history_is_known(httpserver: HTTPServer) -> None:
    serve(httpserver, visit=404, history=404)
    assert client(httpserver).fetch("u1") == FetchedUser("fetched", orjson.dumps(PROFILE), None, [])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(httpserver: HTTPServer, status: int) -> None:
    httpserver.expect_ordered_request("/users/u1/profile").respond_with_data(status=status)
    for what, answer in (("profile", PROFILE), ("visit", VISIT), ("history", HISTORY)):
        httpserver.expect_ordered_request(f"/users/u1/{what}").respond_with_data(orjson.dumps(answer))
    assert client(httpserver).fetch("u1").enrichment == "fetched"


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 410])
def test_a_lasting_failure_is_not_tried_again(httpserver: HTTPServer, status: int) -> None:
    serve(httpserver, profile=status)
    assert client(httpserver).fetch("u1") == unavailable(f"BadAnswerError: profile: HTTP {status}")
    assert len(calls(httpserver)) == 1


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"profile": b"not JSON"}, "profile: invalid literal"),
        ({"profile": b""}, "profile: "),
        ({"profile": [1]}, "profile is a JSON list, allowed is an object"),
        ({"profile": None}, "profile"),
        ({"profile": b'{"a":"\xff"}'}, "profile: "),
        ({"profile": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"}, "profile: nested deeper than 100 levels"),
        ({"visit": []}, "visit: TypeError"),
        ({"visit": {}}, "visit: KeyError"),
        ({"visit": VISIT | {"start_time": "noon"}}, "visit: ValueError"),
        ({"visit": VISIT | {"page_count": None}}, "visit: TypeError"),
        ({"visit": VISIT | {"start_time": 1e300}}, "visit: ValueError .* is beyond 2\\*\\*53"),
        ({"history": {"a": 1}}, "history: TypeError"),
        ({"history": [{}]}, "history: KeyError"),
        ({"history": [None]}, "history: TypeError"),
        ({"history": [HISTORY[0] | {"timestamp": 2**60}]}, "history: ValueError .* is beyond 2\\*\\*53"),
        ({"history": b"[" * 5000}, "history: "),
    ],
)
def test_an_answer_of_the_wrong_shape_is_unavailable(
    httpserver: HTTPServer, answers: dict[str, object], error: str
) -> None:
    serve(httpserver, **answers)
    found = client(httpserver).fetch("u1")
    if answers == {"profile": None}:
        assert found.enrichment == "unknown"  # JSON null is what 404 says
        return
    assert (found.enrichment, found.profile_json, found.visit, found.history) == ("unavailable", b"{}", None, [])
    assert found.error is not None
    assert re.search(error, found.error), found.error


def test_the_deadline_ends_the_retries(httpserver: HTTPServer) -> None:
    serve(httpserver, profile=503)
    started = time.monotonic()
    found = client(httpserver, deadline_s=0.3).fetch("u1")
    assert 0.3 <= time.monotonic() - started < 2
    assert found == unavailable("Timeout: profile: no answer within 0.3 s")
    assert 2 <= len(calls(httpserver)) <= 8


def test_a_call_that_takes_too_long_is_given_up_and_tried_again(httpserver: HTTPServer) -> None:
    release = threading.Event()
    tries: list[str] = []

    def answer(request: Request) -> Response:
        tries.append(request.path)
        if len(tries) == 1:
            release.wait(5)
        return Response(orjson.dumps(PROFILE))

    httpserver.expect_request("/users/u1/profile").respond_with_handler(answer)
    serve(httpserver, visit=404, history=404)
    try:
        # The test server has one thread, so the second try is answered when the first has been let go.
        threading.Timer(0.3, release.set).start()
        assert client(httpserver, call_s=0.2, deadline_s=5).fetch("u1").enrichment == "fetched"
    finally:
        release.set()
    assert len(tries) >= 2


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        api = HttpUserApi(f"http://127.0.0.1:{taken.getsockname()[1]}", 0.1, 0.2, 1, ())
        assert api.fetch("u1").enrichment == "unavailable"


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
    client(httpserver).fetch(user_id)
    assert calls(httpserver) == [path]
    assert httpserver.log[0][0].environ["REQUEST_URI"].count("/") == 3


@pytest.mark.parametrize("user_id", [".", ".."])
def test_a_user_that_would_be_another_path_is_not_asked_for(httpserver: HTTPServer, user_id: str) -> None:
    assert client(httpserver).fetch(user_id) == NOTHING_KNOWN
    assert calls(httpserver) == []


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
    assert FetchPool(held, 1).wait("broken") == unavailable("ValueError: no such thing")


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
