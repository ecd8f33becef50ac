"""The receiver of ``tests/receiver.py`` takes nothing for a webhook that is none."""

from __future__ import annotations

import socket

from tests.receiver import receiving
from tests.waiting import eventually


def test_what_a_killed_sender_has_begun_is_no_webhook() -> None:
    with receiving() as receiver:
        port = int(receiver.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 5) as sender:
            sender.sendall(b"POST /crm HTTP/1.1\r\nwebhook-id: 1\r\nContent-Length: 10\r\n\r\nhal")
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(100) == b""
        assert (receiver.seen, receiver.bad) == ([], [])
        with socket.create_connection(("127.0.0.1", port), 5) as sender:
            sender.sendall(b"POST /crm HTTP/1.1\r\nwebhook-id: 2\r\nContent-Length: 5\r\n\r\nwhole")
            eventually(lambda: [call for call, _, _ in receiver.seen] == ["2"], "the whole one is seen")
