from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.raw_http import Send, certificate, ok, raw_server, server_tls
from tests.transforms.adapters.webhook_sender.test_lanes import DELIVERED
from tests.transforms.adapters.webhook_sender.test_sender import HERE, SECRET
from tests.waiting import eventually
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.adapters.webhook_sender.sender import SendDone, Sender
from transforms.domain.base.durations import Duration
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult

BODY = b'{"event":{}}'
DESTINATION = Destination(name="crm", url="https://hooks.example.com/", secrets=("env:KEY",), max_in_flight=1)


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", SECRET)


class HeldSender(Sender):
    """Attempts end when ``release`` was called."""

    def __init__(self) -> None:
        self.io = IoThread("webhooks-test")
        self.began: list[str] = []
        self._held: list[SendDone] | None = []

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
        self.began.append(webhook_id)
        if self._held is None:
            done(DELIVERED)
        else:
            self._held.append(done)

    def release(self) -> None:
        self.io.submit(self._release)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for done in held:
            done(DELIVERED)


@pytest.fixture
def held() -> HeldSender:
    return HeldSender()


def pool_of(held: HeldSender, destination: Destination = DESTINATION, **more: Any) -> SendPool:
    return SendPool([destination], HERE, io=held.io, sender=lambda _: held, **more)


def test_a_webhook_is_sent_once_and_its_result_is_taken_once(held: HeldSender) -> None:
    pool = pool_of(held)
    assert all(pool.request("w1", "crm", BODY) for _ in range(3))
    assert pool.poll(["w1", "w2"]) == []
    held.release()
    results: list[tuple[str, SendResult]] = []
    eventually(lambda: results.extend(pool.poll(["w2", "w1"])) or results, "the result", 10, 0.002)
    assert results == [("w1", DELIVERED)]
    assert pool.poll(["w1"]) == []
    assert held.began == ["w1"]


def test_a_webhook_whose_result_was_taken_may_be_requested_again(held: HeldSender) -> None:
    held.release()
    pool = pool_of(held)
    for _ in range(2):
        pool.request("w1", "crm", BODY)
        assert pool.wait("w1") == DELIVERED
        with pytest.raises(LookupError):
            pool.wait("w1")
    assert held.began == ["w1", "w1"]


def test_webhooks_of_a_destination_begin_in_the_order_of_their_requests(held: HeldSender) -> None:
    pool = pool_of(held)
    ids = [f"w{number}" for number in range(50)]
    for one in ids:
        pool.request(one, "crm", BODY)
    held.release()
    for one in ids:
        pool.wait(one)
    assert held.began == ids


def test_a_full_queue_says_so_and_has_room_again_later(held: HeldSender) -> None:
    pool = pool_of(held, max_waiting=1)
    assert [pool.request(f"w{number}", "crm", BODY) for number in range(3)] == [True, True, False]
    assert pool.request("w1", "crm", BODY)  # it waits there already
    held.release()
    pool.wait("w0")
    pool.wait("w1")
    assert pool.request("w2", "crm", BODY)
    assert pool.wait("w2") == DELIVERED


def test_one_that_waits_can_be_withdrawn_and_one_in_flight_cannot(held: HeldSender) -> None:
    pool = pool_of(held)
    pool.request("w0", "crm", BODY)
    pool.request("w1", "crm", BODY)
    eventually(lambda: held.began, "the first is in flight", 10, 0.002)
    assert [pool.withdraw(one) for one in ("w0", "w1", "never")] == [False, True, True]
    held.release()
    assert pool.wait("w0") == DELIVERED
    assert held.began == ["w0"]


def test_a_destination_that_is_not_there_any_more_refuses(held: HeldSender) -> None:
    pool = pool_of(held)
    assert pool.request("w0", "erp", BODY)
    ((_, result),) = pool.poll(["w0"])
    assert (result.outcome, result.attempts, result.error_kind) == (Outcome.REFUSED, 0, "no_destination")
    assert result.error == "destination 'erp' is not in the destinations file"


def test_a_secret_that_cannot_be_read_holds_back_its_own_destination_alone(tmp_path: Path) -> None:
    with raw_server(lambda path, request, send: send(ok(b""))) as server:
        good = DESTINATION.model_copy(update={"name": "good", "url": server.url})
        bad = DESTINATION.model_copy(update={"name": "bad", "url": server.url, "secrets": (f"file:{tmp_path}/none",)})
        pool = SendPool([good, bad], HERE)
        for name in ("good", "bad"):
            pool.request(name, name, BODY)
        assert pool.wait("good").outcome is Outcome.DELIVERED
        result = pool.wait("bad")
        assert (result.error_kind, result.error) == ("unsigned", f"file:{tmp_path}/none: No such file or directory")


def test_three_destinations_of_which_one_hangs(tmp_path: Path) -> None:
    """Over TLS, on real connections: the others deliver everything while the one that hangs has delivered nothing."""
    tls, ca = server_tls(certificate(tmp_path)), str(tmp_path / "pem")
    release = threading.Event()

    def hang(path: str, request: str, send: Send) -> None:
        release.wait(30)

    answer = ok(b"")
    with (
        raw_server(lambda path, request, send: send(answer), tls) as one,
        raw_server(hang, tls) as hanging,
        raw_server(lambda path, request, send: send(answer), tls) as two,
    ):
        servers = {"one": one, "hanging": hanging, "two": two}
        destinations = [
            Destination(name=name, url=server.url, secrets=("env:KEY",), max_in_flight=4, timeout=Duration.parse("30s"))
            for name, server in servers.items()
        ]
        pool = SendPool(destinations, HERE, ca_file=ca)
        ids = {name: [f"{name}-{number}" for number in range(40)] for name in servers}
        for number in range(40):
            for name in ("hanging", "one", "two"):
                assert pool.request(ids[name][number], name, BODY)
        latencies_ms = [pool.wait(each).latency_ms for name in ("one", "two") for each in ids[name]]
        assert pool.poll(ids["hanging"]) == []
        assert len(hanging.paths) == 4
        assert (len(one.paths), len(two.paths)) == (40, 40)
        assert max(latencies_ms) < 5000  # where the one that hangs takes 30 s
        release.set()
        for each in ids["hanging"]:
            pool.withdraw(each)


_PROGRAM = """
import threading
from tests.transforms.adapters.webhook_sender.test_send_pool import DESTINATION, HERE
from transforms.adapters.webhook_sender.send_pool import SendPool

class Hangs:
    def start(self, webhook_id, body, done, may_send=None):
        begun.set()

begun = threading.Event()
pool = SendPool([DESTINATION], HERE, sender=lambda _: Hangs())
for number in range(100):
    pool.request(str(number), "crm", b"")
begun.wait(10)
print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.slow
def test_a_process_ends_though_webhooks_are_in_flight_and_waiting() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['MainThread', 'webhooks']"


def test_many_threads_may_ask_at_once(held: HeldSender) -> None:
    held.release()
    pool = pool_of(held, DESTINATION.model_copy(update={"max_in_flight": 8}))
    ids = [f"w{number}" for number in range(400)]
    taken: list[str] = []

    def shard(mine: list[str]) -> None:
        for one in mine:
            assert pool.request(one, "crm", BODY)
        missing = set(mine)
        until_s = time.monotonic() + 20
        while missing:
            assert time.monotonic() < until_s
            for one, result in pool.poll(missing):
                assert result == DELIVERED
                missing.remove(one)
                taken.append(one)

    threads = [threading.Thread(target=shard, args=(ids[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == sorted(ids) == sorted(held.began)


def test_what_waits_and_is_stopped_or_expires_is_never_sent(held: HeldSender) -> None:
    pool = pool_of(held)
    expires_ms = round(time.time() * 1000) - 1
    for webhook_id, until_ms in (
        ("first", 0),
        ("stopped", 0),
        ("expired", expires_ms),
        ("last", expires_ms + 3_600_000),
    ):
        assert pool.request(webhook_id, "crm", BODY, until_ms)
    pool.stop(["stopped", "unknown"])
    held.release()
    results: dict[str, SendResult] = {}
    names = ["first", "stopped", "expired", "last"]
    eventually(lambda: results.update(pool.poll(names)) or len(results) == 4, "all results", 10, 0.002)
    assert held.began == ["first", "last"]
    assert [(results[name].outcome, results[name].attempts) for name in ("stopped", "expired")] == [
        (Outcome.RETRY, 0),
        (Outcome.RETRY, 0),
    ]
