from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from transforms.adapters.threads import DaemonThreads


def named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_what_is_returned_or_raised_is_the_future_s() -> None:
    threads = DaemonThreads(2, "work")
    assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(10)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result(10)
    assert threads.submit(int).result(10) == 0


def test_work_is_done_beside_other_work_but_in_no_more_threads_than_allowed() -> None:
    threads = DaemonThreads(3, "three")
    together = threading.Barrier(3)
    futures = [threads.submit(together.wait, 10) for _ in range(9)]
    assert sorted(future.result(10) for future in futures) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert sorted(thread.name for thread in named("three-")) == ["three-0", "three-1", "three-2"]


def test_threads_start_with_the_work() -> None:
    threads = DaemonThreads(100, "few")
    threads.submit(int).result(10)
    assert len(named("few-")) == 1


def test_work_begins_in_order_and_what_is_cancelled_before_never_does() -> None:
    threads = DaemonThreads(1, "one")
    go, done = threading.Event(), []
    threads.submit(go.wait, 10)
    futures = [threads.submit(done.append, number) for number in range(5)]
    assert futures[2].cancel()
    go.set()
    wait(futures, 10)
    assert done == [0, 1, 3, 4]


class Owner:
    def __init__(self) -> None:
        self.threads = DaemonThreads(4, "ending")
        self.together = threading.Barrier(4)

    def work(self) -> int:
        return self.together.wait(10)


def test_threads_end_with_the_owner_of_their_pool_even_if_it_was_their_work() -> None:
    owner = Owner()
    for future in [owner.threads.submit(owner.work) for _ in range(4)]:
        future.result(10)
    running = named("ending-")
    assert len(running) == 4
    del owner, future
    gc.collect()
    for thread in running:
        thread.join(10)
        assert not thread.is_alive()


_PROGRAM = """
import threading
from transforms.adapters.user_api.fetch_pool import FetchPool

from transforms.adapters.threads import DaemonThreads

class Hangs:
    threads = DaemonThreads(2, "user-api")

    def start(self, user_id):
        return self.threads.submit(self.fetch)

    def fetch(self):
        begun.set()
        threading.Event().wait()

begun = threading.Event()
pool = FetchPool(Hangs())
for number in range(100):
    pool.request(str(number))
begun.wait(10)
print([thread.name for thread in threading.enumerate()])
"""


def test_a_process_ends_though_fetches_are_under_way_and_queued() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['MainThread', 'user-api-0', 'user-api-1']"
