"""Has a worker run as another user than its TaskManager, whose files it then cannot read.

``EVENT_TRIGGER_WORKER_SOCKET`` names the socket of a systemd unit with ``Accept=yes``. What the TaskManager starts then
stands in for the worker: it asks the socket, and lives as long as the worker does. The unit behind the socket starts
``event-trigger-worker --from_socket`` as its own user, with the connection as standard input. That process gets
arguments, environment and the open log of the stand-in, so that it needs no right on the folder of logs.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

SOCKET_VARIABLE = "EVENT_TRIGGER_WORKER_SOCKET"
FROM_SOCKET = "--from_socket"
_PARENT_POLL_S = 0.5
_STDERR = 2


def stand_in(arguments: Sequence[str], path: str) -> NoReturn:
    """Have the unit at ``path`` start a worker that logs to our standard error; ends with 1 after the worker."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # for the worker alone: who sends it to both must not end it
    request = json.dumps({"arguments": list(arguments), "environment": dict(os.environ)}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            socket.send_fds(connection, [request[:1]], [_STDERR])
            connection.sendall(request[1:])
            connection.recv(1)  # nothing is sent: it returns when the connection is closed
            reason = "ended"
        except OSError as error:
            reason = str(error)
    sys.stderr.write(f"{SOCKET_VARIABLE}={path}: the worker behind this socket: {reason}\n")
    sys.exit(1)


def take_request() -> list[str]:
    """In the process that the unit has started: take over log and environment of the stand-in, and end when it ends.

    Returns:
        Its arguments.
    """
    connection = socket.socket(fileno=os.dup(0))
    first, logs, _, _ = socket.recv_fds(connection, 1, 1)
    if not logs:
        sys.exit(f"{FROM_SOCKET}: standard input gave no log; allowed is a connection of {SOCKET_VARIABLE}")
    with connection.makefile("rb") as lines:
        request = json.loads(first + lines.readline())
    # Children of this process must not hold the connection.
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (logs[0], 1), (logs[0], 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(logs[0])
    # What the unit says of its own process (HOME, PATH, PYTHONPATH, ...) counts before what the TaskManager has.
    os.environ.update({name: value for name, value in request["environment"].items() if name not in os.environ})

    def end_with_stand_in() -> None:
        connection.recv(1)
        os._exit(0)  # as it was asked to: the unit has not failed

    threading.Thread(target=end_with_stand_in, name="end-with-stand-in", daemon=True).start()
    return list(request["arguments"])


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent: a killed TaskManager cannot stop its workers.

    (PR_SET_PDEATHSIG does not work here: it follows the parent's *thread*, and the JVM's threads come and go.)
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
