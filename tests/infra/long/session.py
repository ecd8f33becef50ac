"""Stands in for Session Manager, which moto lacks: session.py NAMESPACE LOG ssm start-session …, as `aws` is called."""

import re
import sys
import threading
from pathlib import Path

from tests.infra.long.machines import tunnel

if __name__ == "__main__":
    namespace, log, *arguments = sys.argv[1:]
    with Path(log).open("a") as file:
        file.write(" ".join(arguments) + "\n")
    ports = re.fullmatch(r"portNumber=(\d+),localPortNumber=(\d+)", arguments[arguments.index("--parameters") + 1])
    assert ports, arguments
    with tunnel(namespace, int(ports[1]), int(ports[2])):
        threading.Event().wait()
