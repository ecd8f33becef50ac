"""A network of this machine for containers: a bridge with HOST on it, and a network namespace for each container.

It has no way out, and what runs in it has its own address, as pods have.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NETWORK: Final = "10.78.0"
HOST: Final = f"{_NETWORK}.1"
_BRIDGE: Final = "et-pods"
_NAMESPACE: Final = "event-trigger-pod-"


def address(number: int) -> str:
    """The address of the container with this number, from 2 on."""
    return f"{_NETWORK}.{number}"


@contextmanager
def lan(count: int) -> Iterator[list[str]]:
    """A network for ``count`` containers; what each is started with, in order: that with ``address(2)`` is first."""
    numbers = range(2, count + 2)
    try:
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("address", "add", f"{HOST}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for number in numbers:
            namespace, link = f"{_NAMESPACE}{number}", f"{_BRIDGE}{number}"
            _ip("netns", "add", namespace)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", link, "master", _BRIDGE, "up")
            _ip("-n", namespace, "address", "add", f"{address(number)}/24", "dev", "eth0")
            for name in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", name, "up")
        yield [f"--network=ns:/run/netns/{_NAMESPACE}{number}" for number in numbers]
    finally:
        for number in numbers:
            _ip("netns", "delete", f"{_NAMESPACE}{number}", check=False)
        _ip("link", "delete", _BRIDGE, check=False)


def _ip(*command: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(command)}: {done.stderr}"
