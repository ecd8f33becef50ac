"""A user API for benchmarks: as realistic as the numbers need, and cheap enough not to be what is measured.

Every user has a profile of about 2 KB, a visit and 100 past events with UUIDs. All of it follows from the user's id, so
that it need not be kept: ids, gaps and choices are cut out of one SHAKE-128 digest. ``python -m
tests.benchmarks.user_api`` serves it in a process of its own: one thread, keep-alive, no framework.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import subprocess
import sys
import threading
from types import TracebackType

PAST_EVENTS = 100
# Answers about users whose id starts like this come late.
SLOW_PREFIX = "slow"

_FIRST_MS = 1_704_067_200_000
_NAMES = (
    b"page_view", b"page_view", b"page_view", b"page_view", b"scroll_depth", b"add_to_cart", b"search", b"video_play",
)  # fmt: skip
_UUID = re.compile(rb"(.{8})(.{4}).(.{3}).(.{3})(.{12})")
_UUID_SHAPE = rb"\1-\2-4\3-a\4-\5|"
_PAST = b'{"event_id":"%b","event_name":"%b","timestamp":%d}'
_CITIES = (b"New York", b"Berlin", b"Istanbul", b"Lyon", b"Porto", b"San Francisco", b"Ghent", b"Izmir")
_COUNTRIES = (b"US", b"DE", b"TR", b"FR", b"PT", b"US", b"BE", b"TR")
_SEGMENTS = (b"newsletter", b"high_intent", b"discount_seeker", b"returning", b"vip", b"churn_risk", b"mobile_only",
             b"gift_buyer")  # fmt: skip
_PRODUCTS = (b"Trail running shoe", b"Leather weekender", b"Merino base layer", b"Rain shell 3L", b"Canvas belt",
             b"Travel adapter", b"Wool beanie", b"Steel bottle 0.7 l")  # fmt: skip


def profile(user_id: bytes) -> bytes:
    """The profile, JSON of about 2 KB: names, contacts, consents, segments, figures, the last orders."""
    d = hashlib.shake_128(b"profile" + user_id).digest(160)
    h = d.hex().encode()
    orders = b",".join(
        b'{"order_id":"%b-%b","placed_at":%d,"total":%d.%02d,"currency":"EUR","items":[{"sku":"%b","name":"%b",'
        b'"quantity":%d}],"status":"delivered"}'
        % (
            h[80 + 12 * n : 84 + 12 * n].upper(),
            h[84 + 12 * n : 90 + 12 * n].upper(),
            _FIRST_MS - 86_400_000 * n - int.from_bytes(d[40 + n : 43 + n], "big"),
            d[50 + n],
            d[55 + n] % 100,
            h[150 + 8 * n : 158 + 8 * n],
            _PRODUCTS[d[60 + n] & 7],
            1 + d[65 + n] % 3,
        )
        for n in range(5)
    )
    segments = b",".join(b'"%b"' % _SEGMENTS[(d[70] + 3 * n) & 7] for n in range(2 + d[71] % 4))
    return (
        b'{"user_id":"%b","external_id":"%b","first_name":"%b","last_name":"%b","email":"%b.%b@mail%d.example.com",'
        b'"phone":"+49%d","locale":"de-DE","timezone":"Europe/Berlin","country":"%b","city":"%b","postal_code":"%05d",'
        b'"created_at":%d,"last_login_at":%d,"device":{"os":"iOS 17.%d","model":"iPhone %d,%d","app_version":"5.%d.%d",'
        b'"push_token":"%b"},"consents":{"marketing_email":%b,"marketing_push":%b,"profiling":true,"updated_at":%d},'
        b'"segments":[%b],"scores":{"purchase_probability":0.%06d,"churn_risk":0.%06d,"affinity_shoes":0.%04d,'
        b'"affinity_outdoor":0.%04d,"affinity_travel":0.%04d},"lifetime":{"orders":%d,"revenue":%d.%02d,"returns":%d,'
        b'"sessions":%d,"average_basket":%d.%02d},"subscription":{"plan":"plus","renews_at":%d,"status":"active"},'
        b'"last_orders":[%b],"address":{"street":"%b Street %d","district":"%b","country":"%b","verified":true},'
        b'"attribution":{"utm_source":"newsletter","utm_medium":"email","utm_campaign":"winter_%b","gclid":"%b"},'
        b'"preferences":{"theme":"dark","currency":"EUR","units":"metric","notifications":{"price_drop":true,'
        b'"back_in_stock":true,"weekly_digest":false}}}'
    ) % (
        user_id, h[:32], h[32:39].title(), h[40:49].title(), h[32:39], h[40:49], d[20] % 9,
        int.from_bytes(d[:5], "big") % 10**10, _COUNTRIES[d[21] & 7], _CITIES[d[21] & 7],
        int.from_bytes(d[22:25], "big") % 100_000, _FIRST_MS - int.from_bytes(d[24:29], "big") % 10**11,
        _FIRST_MS - int.from_bytes(d[29:32], "big"), d[32] % 7, 12 + d[33] % 4, d[34] % 6, d[35] % 20, d[36] % 10,
        h[190:254], (b"true", b"false")[d[37] & 1], (b"true", b"false")[d[38] & 1],
        _FIRST_MS - int.from_bytes(d[36:40], "big"), segments, int.from_bytes(d[1:4], "big") % 10**6,
        int.from_bytes(d[5:8], "big") % 10**6, int.from_bytes(d[9:11], "big") % 10**4,
        int.from_bytes(d[11:13], "big") % 10**4, int.from_bytes(d[13:15], "big") % 10**4, d[15], d[16] * 7, d[17] % 100,
        d[18] % 9, 3 * d[19], d[25], d[26] % 100, _FIRST_MS + 86_400_000 * d[27], orders, h[254:263].title(), d[28],
        h[263:270].title(), _COUNTRIES[d[21] & 7], h[270:274], h[274:320],
    )  # fmt: skip


def visit(user_id: bytes) -> bytes:
    """The current visit, JSON."""
    d = hashlib.shake_128(b"visit" + user_id).digest(20)
    return b'{"visit_id":"%b","start_time":%d,"page_count":%d,"is_first_visit":%b}' % (
        d[:16].hex().encode(), _FIRST_MS - int.from_bytes(d[16:18], "big"), d[18] % 20, (b"true", b"false")[d[19] & 1],
    )  # fmt: skip


def history(user_id: bytes) -> bytes:
    """The past events, JSON, oldest first: UUIDs of version 4, half a minute apart, now and then days."""
    d = hashlib.shake_128(b"history" + user_id).digest(PAST_EVENTS * 20)
    ids = _UUID.sub(_UUID_SHAPE, d[: PAST_EVENTS * 16].hex().encode()).split(b"|")
    at_ms = _FIRST_MS
    rows = []
    for n in range(PAST_EVENTS):
        a, b, c = d[1600 + 3 * n : 1603 + 3 * n]
        at_ms -= a * 256 + b + (500_000 * b if c < 12 else 0)
        rows.append(_PAST % (ids[n], _NAMES[c & 7], at_ms))
    return b"[%b]" % b",".join(reversed(rows))


_ANSWERS = {b"profile": profile, b"visit": visit, b"history": history}
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class _Connection(asyncio.Protocol):
    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            path = self._received[4 : self._received.index(b" ", 4)]
            self._received = self._received[end + 4 :]
            _, _, user_id, what = path.split(b"/")
            body = _ANSWERS[what](user_id)
            answer = _HEAD % (b"200 OK", len(body), body)
            if user_id.startswith(SLOW_PREFIX.encode()):
                asyncio.get_running_loop().call_later(self._slow_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


class UserApiProcess:
    """The API in a process of its own while the context is open; of users ``slow…`` it answers after ``slow_s``."""

    def __init__(self, slow_s: float = 0.0) -> None:
        self._slow_s = slow_s

    def __enter__(self) -> UserApiProcess:
        command = [sys.executable, "-m", "tests.benchmarks.user_api", f"--slow_s={self._slow_s}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid


async def _serve(slow_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(slow_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow_s", type=float, default=0.0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(parser.parse_args().slow_s))
