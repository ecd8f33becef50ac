"""How servers behave in the field, and what each of it must mean to the user API's client and to the webhook sender.

Collected from the issue lists of curl, aiohttp, urllib3 and webhook senders, and from RFC 9110 and 9112.

A meaning is a word, and what follows it: for the user API the user (``known``, ``unknown``) or the error's kind, for a
webhook its outcome and the error's kind. ``again``: another attempt is made, which succeeds. ``down``: the breaker
counts it. ``resent``: libcurl sends the request a second time by itself.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

import orjson

from tests.transforms.adapters.http.hostile_server import Act, Wire

PROFILE = {"country": "US"}
GOOD = orjson.dumps({"profile": PROFILE})
MAX_ANSWER_BYTES = 100_000

KNOWN, UNKNOWN = "known", "unknown"
BAD_ANSWER, TOO_LARGE, STATUS = "bad_answer", "too_large", "status"
LOST, LATE, OVERLOADED = "connection again down", "timeout again down", "status again down"

DELIVERED, LATE_BUT_DELIVERED = "delivered", "delivered down"
REFUSED, REDIRECT, GONE = "refused status", "refused redirect", "gone status"
RETRY_BAD, RETRY_LOST, RETRY_LATE = (
    "retry bad_answer again down",
    "retry connection again down",
    "retry timeout again down",
)
RETRY_STATUS = "retry status again down"


@dataclass(frozen=True)
class Behaviour:
    """What a server does, and what it must mean.

    Attributes:
        name: of the test.
        act: what it does with a request.
        api: the meaning to the user API's client.
        hook: the meaning to the webhook sender.
        kept_api: the same over a connection that was used before, if it differs.
        kept_hook: the same for a webhook.
        is_slow: whether the call's time ends.
    """

    name: str
    act: Act
    api: str
    hook: str
    kept_api: str | None = None
    kept_hook: str | None = None
    is_slow: bool = False


def says(data: bytes, then: str = "close") -> Act:
    def act(wire: Wire) -> None:
        wire.send(data)
        if then == "stay":
            wire.wait()
        elif then == "reset":
            wire.reset()
        elif then == "stop_sending":
            wire.stop_sending()
            wire.wait()

    return act


def answer(body: bytes, *headers: str, status: str = "200 OK", then: str = "close") -> Act:
    return says(message(body, *headers, status=status), then)


def message(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return raw(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers) + body


def raw(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(chunks: bytes, *headers: str, then: str = "close") -> Act:
    return says(raw("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers) + chunks, then)


def chunk(data: bytes, extension: str = "") -> bytes:
    return f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n"


def drips(start: bytes, drop: bytes = b" ") -> Act:
    def act(wire: Wire) -> None:
        wire.send(start)
        while not wire.ended.wait(0.02):
            wire.send(drop)

    return act


def floods(start: bytes, wave: bytes) -> Act:
    def act(wire: Wire) -> None:
        wire.send(start)
        while not wire.ended.is_set():
            wire.send(wave)

    return act


def packed(wbits: int, data: bytes = GOOD) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


def waits(wire: Wire) -> None:
    wire.wait()


GZIP = gzip.compress(GOOD)
BOMB = gzip.compress(bytes(20_000_000))
OTHER_USER = orjson.dumps({"profile": {"smuggled": True}})
SMUGGLED = message(OTHER_USER) + raw("HTTP/1.1 410 Gone", "Content-Length: 0")
OK = "HTTP/1.1 200 OK"
LENGTH = f"Content-Length: {len(GOOD)}"
JSON_START = b'{"profile":{"country":"US"}'  # an object that has not ended yet


def good(*headers: str, status: str = "200 OK") -> Act:
    return answer(GOOD, *headers, status=status)


HEADERS = [
    Behaviour("a header of 9 KB", good("X: " + "y" * 9_000), KNOWN, DELIVERED),
    Behaviour("a header of 60 KB", good("X: " + "y" * 60_000), KNOWN, DELIVERED),
    Behaviour("a header of 70 KB", good("X: " + "y" * 70_000), BAD_ANSWER, RETRY_BAD),
    Behaviour("a header of 2 MB", good("X: " + "y" * 2_000_000), BAD_ANSWER, RETRY_BAD),
    Behaviour("1,000 headers", good(*["X: y"] * 1_000), KNOWN, DELIVERED),
    Behaviour("12,000 headers", good(*["X: y"] * 12_000), BAD_ANSWER, RETRY_BAD),
    Behaviour("headers without end", floods(raw(OK)[:-2], b"X: y\r\n" * 1000), BAD_ANSWER, RETRY_BAD),
    Behaviour("a header line without end", floods(raw(OK)[:-2] + b"X: ", b"y" * 10_000), BAD_ANSWER, RETRY_BAD),
    Behaviour("a folded header", good("X: a\r\n  b"), KNOWN, DELIVERED),
    Behaviour("a header without colon", good("no header"), BAD_ANSWER, RETRY_BAD),
    Behaviour("a header without name", good(": value"), KNOWN, DELIVERED),
    Behaviour("a space before a colon", good("X : value"), KNOWN, DELIVERED),
    Behaviour("a header with NUL", good("X: \x00"), BAD_ANSWER, RETRY_BAD),
    Behaviour("a header in Latin-1", good("X: \xe9\xff"), KNOWN, DELIVERED),
    Behaviour("bare line feeds", says(f"{OK}\n{LENGTH}\n\n".encode() + GOOD), KNOWN, DELIVERED),
    Behaviour("bare carriage returns", says(f"{OK}\r{LENGTH}\r\r".encode() + GOOD), LOST, RETRY_LOST, "known resent"),
    Behaviour("a cookie", good("Set-Cookie: seen=1; Path=/"), KNOWN, DELIVERED),
    Behaviour("another server for the next call", good('Alt-Svc: h3=":1", h2="127.0.0.1:1"; ma=99'), KNOWN, DELIVERED),
    Behaviour("strict transport security", good("Strict-Transport-Security: max-age=99999"), KNOWN, DELIVERED),
    Behaviour("an upgrade that is offered", good("Upgrade: h2c", "Connection: Upgrade"), KNOWN, DELIVERED),
    Behaviour("a kept connection for 0 s", good("Keep-Alive: timeout=0, max=0"), KNOWN, DELIVERED),
    Behaviour("another content type", good("Content-Type: text/html; charset=utf-16"), KNOWN, DELIVERED),
]
STATUS_LINES = [
    Behaviour("garbage", says(b"SSH-2.0-OpenSSH_9.6\r\n"), BAD_ANSWER, RETRY_BAD),
    Behaviour("a TLS alert in plain text", says(b"\x15\x03\x01\x00\x02\x02\x46"), BAD_ANSWER, RETRY_BAD),
    Behaviour("garbage before the status line", says(b"xx\r\n" + message(GOOD)), BAD_ANSWER, RETRY_BAD),
    Behaviour("an empty line before the status line", says(b"\r\n" + message(GOOD)), BAD_ANSWER, RETRY_BAD),
    Behaviour("HTTP/0.9", says(GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("HTTP/1.0 without length", says(raw("HTTP/1.0 200 OK") + GOOD), KNOWN, DELIVERED),
    Behaviour(
        "HTTP/1.0 with chunks",
        says(raw("HTTP/1.0 200 OK", "Transfer-Encoding: chunked") + chunk(GOOD) + b"0\r\n\r\n"),
        KNOWN,
        DELIVERED,
    ),
    Behaviour("HTTP/2 without being asked", says(raw("HTTP/2 200 OK", LENGTH) + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour(
        "frames of HTTP/2", says(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x01\x00\x00"), BAD_ANSWER, RETRY_BAD
    ),
    Behaviour("HTTP/3.0", says(raw("HTTP/3.0 200 OK", LENGTH) + GOOD), KNOWN, DELIVERED),
    Behaviour("a status line in lower case", says(raw("http/1.1 200 ok", LENGTH) + GOOD), KNOWN, DELIVERED),
    Behaviour("a status line without reason", says(raw("HTTP/1.1 200", LENGTH) + GOOD), KNOWN, DELIVERED),
    Behaviour("a reason of 8 KB", good(status="200 " + "x" * 8_000), KNOWN, DELIVERED),
    Behaviour("status 000", good(status="000 X"), BAD_ANSWER, RETRY_BAD),
    Behaviour("status 99", good(status="99 X"), BAD_ANSWER, RETRY_BAD),
    Behaviour("status 2000", good(status="2000 X"), KNOWN, DELIVERED),
    Behaviour("status 600", good(status="600 X"), BAD_ANSWER, RETRY_BAD),
    Behaviour("status 999", good(status="999 X"), BAD_ANSWER, RETRY_BAD),
    Behaviour("a negative status", good(status="-200 X"), BAD_ANSWER, RETRY_BAD),
]
INTERIM = [
    Behaviour("100 that nobody asked for", says(raw("HTTP/1.1 100 Continue") + message(GOOD)), KNOWN, DELIVERED),
    Behaviour(
        "103 and then 200", says(raw("HTTP/1.1 103 Early Hints", "Link: </x>") + message(GOOD)), KNOWN, DELIVERED
    ),
    Behaviour("102 and then 410", says(raw("HTTP/1.1 102 X") + message(b"", status="410 X")), STATUS, GONE),
    Behaviour("199 and then 200", says(raw("HTTP/1.1 199 X") + message(GOOD)), KNOWN, DELIVERED),
    Behaviour("100 interim answers", says(raw("HTTP/1.1 103 X", "Link: </x>") * 100 + message(GOOD)), KNOWN, DELIVERED),
    Behaviour(
        "interim answers without end", floods(b"", raw("HTTP/1.1 103 X", "Link: </x>") * 100), BAD_ANSWER, RETRY_BAD
    ),
    Behaviour("103 and no more", says(raw("HTTP/1.1 103 X")), LOST, RETRY_LOST),
    Behaviour("103 with a length", says(raw("HTTP/1.1 103 X", "Content-Length: 5") + message(GOOD)), KNOWN, DELIVERED),
    Behaviour("101", says(raw("HTTP/1.1 101 Switching Protocols", "Upgrade: x") + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("103 and silence", says(raw("HTTP/1.1 103 X"), "stay"), LATE, RETRY_LATE, is_slow=True),
]
LENGTHS = [
    Behaviour("no length", says(raw(OK) + GOOD), KNOWN, DELIVERED),
    Behaviour("the same length twice", good(LENGTH), KNOWN, DELIVERED),
    Behaviour("two lengths", good("Content-Length: 3"), BAD_ANSWER, RETRY_BAD),
    Behaviour("two lengths in one header", says(raw(OK, f"{LENGTH}, {len(GOOD)}") + GOOD), KNOWN, DELIVERED),
    Behaviour("a length in words", says(raw(OK, "Content-Length: two") + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("a negative length", says(raw(OK, "Content-Length: -1") + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("a length with a plus", says(raw(OK, f"Content-Length: +{len(GOOD)}") + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("an empty length", says(raw(OK, "Content-Length: ") + GOOD), BAD_ANSWER, RETRY_BAD),
    Behaviour("a huge length", says(raw(OK, "Content-Length: 9223372036854775807") + GOOD), LOST, DELIVERED),
    Behaviour("a length of 30 digits", says(raw(OK, "Content-Length: " + "9" * 30) + GOOD), KNOWN, DELIVERED),
    Behaviour("a body that is shorter", says(raw(OK, "Content-Length: 900") + GOOD), LOST, DELIVERED),
    Behaviour("a body that is longer", says(raw(OK, LENGTH) + GOOD + b"}}}"), KNOWN, DELIVERED),
    Behaviour("a length of 0 with a body", says(raw(OK, "Content-Length: 0") + GOOD), BAD_ANSWER, DELIVERED),
    Behaviour("a length and chunks", chunked(chunk(GOOD) + b"0\r\n\r\n", "Content-Length: 3"), KNOWN, DELIVERED),
    Behaviour("an empty body without length", says(raw(OK)), BAD_ANSWER, DELIVERED),
]
CHUNKS = [
    Behaviour("chunks with extensions", chunked(chunk(GOOD, ';a="b";c') + b"0;d\r\n\r\n"), KNOWN, DELIVERED),
    Behaviour("a size with leading zeros", chunked(b"000000" + chunk(GOOD) + b"0\r\n\r\n"), KNOWN, DELIVERED),
    Behaviour("a size that is no number", chunked(b"zz\r\n" + GOOD), BAD_ANSWER, DELIVERED),
    Behaviour("a negative size", chunked(b"-5\r\n" + GOOD), BAD_ANSWER, DELIVERED),
    Behaviour("a size of 20 digits", chunked(b"f" * 20 + b"\r\n" + GOOD), BAD_ANSWER, DELIVERED),
    Behaviour("a chunk longer than its size", chunked(b"3\r\n" + GOOD + b"\r\n0\r\n\r\n"), BAD_ANSWER, DELIVERED),
    Behaviour("a last chunk that is missing", chunked(chunk(GOOD)), LOST, DELIVERED),
    Behaviour("a chunk that is cut off", chunked(b"384\r\n" + GOOD), LOST, DELIVERED),
    Behaviour(
        "an extension without end",
        floods(raw(OK, "Transfer-Encoding: chunked") + b"1;", b"x" * 10_000),
        LATE,
        LATE_BUT_DELIVERED,
        is_slow=True,
    ),
    Behaviour("trailers", chunked(chunk(GOOD) + b"0\r\nX: y\r\n\r\n"), KNOWN, DELIVERED),
    Behaviour(
        "trailers without end",
        floods(raw(OK, "Transfer-Encoding: chunked") + chunk(GOOD) + b"0\r\n", b"X: y\r\n" * 1000),
        BAD_ANSWER,
        DELIVERED,
    ),
    Behaviour("chunks of no bytes", chunked(b"0\r\n\r\n", then="stay"), BAD_ANSWER, DELIVERED),
    Behaviour(
        "chunked twice",
        says(raw(OK, "Transfer-Encoding: chunked, chunked") + chunk(GOOD) + b"0\r\n\r\n"),
        KNOWN,
        DELIVERED,
    ),
    Behaviour(
        "a transfer encoding that nobody knows", says(raw(OK, "Transfer-Encoding: x") + GOOD), BAD_ANSWER, RETRY_BAD
    ),
    Behaviour(
        "chunks without end",
        floods(raw(OK, "Transfer-Encoding: chunked"), chunk(b" " * 1000) * 20),
        TOO_LARGE,
        DELIVERED,
    ),
]
BODIES = [
    Behaviour("gzip", answer(GZIP, "Content-Encoding: gzip"), KNOWN, DELIVERED),
    Behaviour("gzip that nobody mentions", answer(GZIP), KNOWN, DELIVERED),
    Behaviour("gzip that is cut off", answer(GZIP[:-9], "Content-Encoding: gzip"), LOST, DELIVERED),
    Behaviour(
        "gzip with a broken checksum", answer(GZIP[:-8] + bytes(8), "Content-Encoding: gzip"), BAD_ANSWER, DELIVERED
    ),
    Behaviour("gzip with zeros behind it", answer(GZIP + bytes(512), "Content-Encoding: gzip"), KNOWN, DELIVERED),
    Behaviour(
        "gzip with garbage behind it", answer(GZIP + b"garbage", "Content-Encoding: gzip"), BAD_ANSWER, DELIVERED
    ),
    Behaviour("no gzip that is called so", answer(GOOD, "Content-Encoding: gzip"), KNOWN, DELIVERED),
    Behaviour("gzip twice", answer(gzip.compress(GZIP), "Content-Encoding: gzip, gzip"), BAD_ANSWER, DELIVERED),
    Behaviour("a bomb of gzip", answer(BOMB, "Content-Encoding: gzip"), TOO_LARGE, DELIVERED),
    Behaviour("deflate", answer(packed(15), "Content-Encoding: deflate"), BAD_ANSWER, DELIVERED),
    Behaviour("brotli", answer(b"\x0b\x0d\x80" + GOOD + b"\x03", "Content-Encoding: br"), BAD_ANSWER, DELIVERED),
    Behaviour("an encoding that nobody knows", answer(b"\x00\x01", "Content-Encoding: x"), BAD_ANSWER, DELIVERED),
    Behaviour("a byte order mark", answer(b"\xef\xbb\xbf" + GOOD), KNOWN, DELIVERED),
    Behaviour("UTF-16", answer(GOOD.decode().encode("utf-16")), BAD_ANSWER, DELIVERED),
    Behaviour("Latin-1", answer(b'{"profile":{"city":"Z\xfcrich"}}'), BAD_ANSWER, DELIVERED),
    Behaviour("JSON that has not ended", answer(JSON_START), BAD_ANSWER, DELIVERED),
    Behaviour("two documents", answer(GOOD + GOOD), BAD_ANSWER, DELIVERED),
    Behaviour("a page in HTML", answer(b"<html>down for maintenance</html>"), BAD_ANSWER, DELIVERED),
    Behaviour("a body without end", floods(raw(OK), b" " * 10_000), TOO_LARGE, DELIVERED),
]
STATUSES = [
    Behaviour("201", good(status="201 X"), STATUS, DELIVERED),
    Behaviour("203", good(status="203 X"), KNOWN, DELIVERED),
    Behaviour("204", answer(b"", status="204 X"), UNKNOWN, DELIVERED),
    Behaviour("204 with a body", answer(GOOD, status="204 X"), UNKNOWN, DELIVERED),
    Behaviour(
        "204 with chunks", says(raw("HTTP/1.1 204 X", "Transfer-Encoding: chunked") + b"0\r\n\r\n"), UNKNOWN, DELIVERED
    ),
    Behaviour("205", answer(b"", status="205 X"), STATUS, DELIVERED),
    Behaviour("206", good("Content-Range: bytes 0-9/99", status="206 X"), STATUS, DELIVERED),
    Behaviour("300", good(status="300 X"), STATUS, REDIRECT),
    Behaviour("301 to a file", answer(b"", "Location: file:///etc/passwd", status="301 X"), STATUS, REDIRECT),
    Behaviour(
        "302 into the network", answer(b"", "Location: http://169.254.169.254/", status="302 X"), STATUS, REDIRECT
    ),
    Behaviour("303 without location", answer(b"", status="303 X"), STATUS, REDIRECT),
    Behaviour("304 with a body", answer(GOOD, status="304 X"), STATUS, REDIRECT),
    Behaviour("307 to itself", answer(b"", "Location: /", status="307 X"), STATUS, REDIRECT),
    Behaviour("308 with a broken location", answer(b"", "Location: http://[", status="308 X"), STATUS, REDIRECT),
    Behaviour("a refresh", good("Refresh: 0; url=http://127.0.0.1:1/"), KNOWN, DELIVERED),
    Behaviour("400", answer(b"", status="400 X"), STATUS, REFUSED),
    Behaviour(
        "401 with challenges",
        answer(b"", "WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Negotiate", status="401 X"),
        STATUS,
        REFUSED,
    ),
    Behaviour("404", answer(b"", status="404 X"), UNKNOWN, REFUSED),
    Behaviour("407", answer(b"", "Proxy-Authenticate: Basic realm=x", status="407 X"), STATUS, REFUSED),
    Behaviour("408", answer(b"", "Connection: close", status="408 X"), "status again", "retry status again"),
    Behaviour("410", answer(b"", status="410 X"), STATUS, GONE),
    Behaviour("413 and a reset", answer(b"", status="413 X", then="reset"), STATUS, REFUSED),
    Behaviour("417", answer(b"", status="417 X"), STATUS, REFUSED),
    Behaviour("421", answer(b"", status="421 X"), STATUS, REFUSED),
    Behaviour("425", answer(b"", status="425 X"), "status again", "retry status again"),
    Behaviour("429", answer(b"", status="429 X"), OVERLOADED, RETRY_STATUS),
    *(
        Behaviour(
            f"429 with Retry-After {text or 'of no text'}",
            answer(b"", f"Retry-After: {text}", status="429 X"),
            OVERLOADED,
            RETRY_STATUS,
        )
        for text in ("-5", "0.1", "soon", "", "0, 0", "Fri, 99 Foo 2020 99:99:99 GMT")
    ),
    # libcurl does not tell a pause of 0 s from none.
    *(
        Behaviour(
            f"429 with Retry-After {text}",
            answer(b"", f"Retry-After: {text}", status="429 X"),
            OVERLOADED,
            "retry status again",
        )
        for text in ("0", "Fri, 24 Jul 2020 12:00:30 GMT", "Friday, 24-Jul-20 12:00:30 GMT", "Fri Jul 24 12:00:30 2020")
    ),
    *(
        Behaviour(
            f"503 with Retry-After {text}",
            answer(b"", f"Retry-After: {text}", status="503 X"),
            "status down",
            "retry status down",
        )
        for text in ("86400", "9" * 12, "Fri, 24 Jul 2099 12:00:30 GMT")
    ),
    Behaviour("431", answer(b"", status="431 X"), STATUS, REFUSED),
    *(
        Behaviour(str(status), answer(b"", status=f"{status} X"), OVERLOADED, RETRY_STATUS)
        for status in (500, 501, 502, 503, 504, 505, 511, 520, 599)
    ),
]
CONNECTIONS = [
    Behaviour("close before an answer", says(b""), LOST, RETRY_LOST, "known resent"),
    Behaviour("reset before an answer", says(b"", "reset"), LOST, RETRY_LOST, "known resent"),
    Behaviour("half close before an answer", says(b"", "stop_sending"), LOST, RETRY_LOST, "known resent"),
    Behaviour("close in the status line", says(b"HTTP/1.1 20"), LOST, RETRY_LOST, "known resent"),
    Behaviour("close behind the status", says(b"HTTP/1.1 200"), LOST, RETRY_LOST, "known resent"),
    Behaviour("close in the headers", says(b"HTTP/1.1 200 OK\r\nContent-Le"), LOST, RETRY_LOST),
    Behaviour("close between headers", says(raw(OK, LENGTH)[:-2]), LOST, RETRY_LOST),
    Behaviour("reset in the headers", says(b"HTTP/1.1 200 OK\r\nX", "reset"), LOST, RETRY_LOST),
    Behaviour("reset in the body", says(raw(OK, "Content-Length: 900") + GOOD, "reset"), LOST, DELIVERED),
    Behaviour("half close behind the answer", answer(GOOD, then="stop_sending"), KNOWN, DELIVERED),
    Behaviour("a close that does not come", good("Connection: close"), KNOWN, DELIVERED),
    Behaviour(
        "a 503 that is cut off", says(raw("HTTP/1.1 503 X", "Content-Length: 900"), "reset"), OVERLOADED, RETRY_STATUS
    ),
    Behaviour("two answers", says(message(GOOD) + SMUGGLED, "stay"), KNOWN, DELIVERED),
]
TIME = [
    Behaviour("no answer", waits, LATE, RETRY_LATE, is_slow=True),
    Behaviour("a status line that drips", drips(b"HTTP/1.1 200 ", b"x"), LATE, RETRY_LATE, is_slow=True),
    Behaviour("headers that drip", drips(raw(OK)[:-2], b"X: y\r\n"), LATE, RETRY_LATE, is_slow=True),
    Behaviour("a body that drips", drips(raw(OK, "Content-Length: 900")), LATE, LATE_BUT_DELIVERED, is_slow=True),
    Behaviour(
        "chunks that drip",
        drips(raw(OK, "Transfer-Encoding: chunked"), chunk(b" ")),
        LATE,
        LATE_BUT_DELIVERED,
        is_slow=True,
    ),
    Behaviour("interim answers that drip", drips(b"", raw("HTTP/1.1 102 X")), LATE, RETRY_LATE, is_slow=True),
    Behaviour("a body that does not end", says(raw(OK) + GOOD, "stay"), LATE, LATE_BUT_DELIVERED, is_slow=True),
    Behaviour(
        "a 503 whose body drips",
        drips(raw("HTTP/1.1 503 X", "Content-Length: 900")),
        OVERLOADED,
        RETRY_STATUS,
        is_slow=True,
    ),
    Behaviour(
        "a 410 whose body drips",
        drips(raw("HTTP/1.1 410 X", "Content-Length: 900")),
        STATUS,
        "gone status down",
        is_slow=True,
    ),
]

ANSWERS = HEADERS + STATUS_LINES + INTERIM + LENGTHS + CHUNKS + BODIES + STATUSES + CONNECTIONS + TIME
# These depend on how a connection ends, which TLS says in its own way.
OVER_TLS = LENGTHS + CONNECTIONS + TIME

# What comes over a kept connection while nobody has asked.
LEFTOVERS = {
    "another answer": SMUGGLED,
    "an interim answer": raw("HTTP/1.1 103 X"),
    "408": message(b"", status="408 X"),
    "garbage": b"\x00\r\n\r\n",
    "half an answer": raw(OK, "Content-Length: 900"),
}
