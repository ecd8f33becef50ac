"""moto's S3 as a child process: ``python -m tests.faults.s3_server PORT``, with ``tests.moto.packages`` on its path.

SIGUSR1 takes it down (connections are refused), SIGUSR2 brings it up again. What it holds stays.
"""

import signal
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[1])
    switches = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, switches)
    while True:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        while signal.sigwait(switches) != signal.SIGUSR1:
            pass
        server.stop()
        while signal.sigwait(switches) != signal.SIGUSR2:
            pass


if __name__ == "__main__":
    main()
