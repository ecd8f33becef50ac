"""Which TCP ports of an address take connections; ``python -m tests.scan ADDRESS`` prints them as JSON."""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time

_AT_ONCE = 500


def open_ports(address: str, deadline_s: float = 240) -> set[int]:
    """All ports of an IPv4 address to which a connection can be made, tried one by one.

    Raises:
        TimeoutError: no answer for some ports: something between here and there drops packets.
    """
    waiting, found, give_up = list(range(65_535, 0, -1)), set[int](), time.monotonic() + deadline_s
    with selectors.DefaultSelector() as tried:
        while waiting or tried.get_map():
            while waiting and len(tried.get_map()) < _AT_ONCE:
                port = waiting.pop()
                connection = socket.socket()
                connection.setblocking(False)
                if connection.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                    tried.register(connection, selectors.EVENT_WRITE, port)
                else:
                    connection.close()
            for key, _ in tried.select(1):
                connection = key.fileobj  # type: ignore[assignment]
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(key.data)
                tried.unregister(connection)
                connection.close()
            if time.monotonic() > give_up:
                raise TimeoutError(
                    f"{address}: {len(waiting) + len(tried.get_map())} ports not tried or without answer"
                )
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sorted(open_ports(sys.argv[1]))))
