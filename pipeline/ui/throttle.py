"""Slows down those who try tokens, an address at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

FREE: Final = 5  # failures before an address has to wait
_LONGEST_S: Final = 60.0
_FORGOTTEN_AFTER_S: Final = 900.0
_MOST_ADDRESSES: Final = 1000


class Throttle:
    """Counts failures of an address. After ``FREE`` of them it has to wait a second, then two, up to a minute.

    Of IPv6 a network of 64 bits counts as one address, because its machines choose theirs freely. So does all that a
    proxy passes on and that is no address. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By address: the number of failures, and when the last one was. The oldest comes first.
        self._failures: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str) -> float:
        """How long the address has to wait before it may try; 0 if it need not."""
        with self._lock:
            count, failed_s = self._failures.get(_network(address), (0, 0.0))
            pause_s = 0.0 if count < FREE else min(2.0 ** (count - FREE), _LONGEST_S)
            return max(0.0, failed_s + pause_s - self._clock())

    def failed(self, address: str) -> int:
        """Count a failure; how many there were."""
        name, now_s = _network(address), self._clock()
        with self._lock:
            count, failed_s = self._failures.pop(name, (0, 0.0))
            count = 1 if now_s - failed_s > _FORGOTTEN_AFTER_S else count + 1
            self._failures[name] = (min(count, 64), now_s)
            if len(self._failures) > _MOST_ADDRESSES:
                del self._failures[next(iter(self._failures))]
            return count

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        with self._lock:
            self._failures.pop(_network(address), None)


def _network(address: str) -> str:
    """What counts as one address; a proxy may add the port, as ``[fd00::1]:443``."""
    try:
        given = ip_address(address.strip("[").partition("]")[0])
    except ValueError:
        return "unknown"
    if isinstance(given, IPv6Address):
        return str(given.ipv4_mapped or int(given) >> 64)
    return str(given)
