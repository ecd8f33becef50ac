"""moto's S3 as a child process: ``python -m tests.faults.s3_server PORT``, with ``tests.moto.packages`` on its path.

SIGUSR1 takes it down (connections are refused), SIGHUP has it answer 503 SlowDown to everything, SIGUSR2 brings it back
from either. What it holds stays.
"""

import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import ThreadedMotoServer

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def _slow_down(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as S3 does whose prefix gets more requests than it has scaled it for."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the next request begins within this body
    start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW_DOWN)))])
    return [_SLOW_DOWN]


def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[1])
    switches = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, switches)
    while True:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        answers_all = server._server.app
        while (switch := signal.sigwait(switches)) != signal.SIGUSR1:
            server._server.app = _slow_down if switch == signal.SIGHUP else answers_all
        server.stop()
        while signal.sigwait(switches) != signal.SIGUSR2:
            pass


if __name__ == "__main__":
    main()
