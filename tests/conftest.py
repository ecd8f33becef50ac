"""The real Kafka and Flink that tests marked ``stack`` share: started by the first test that asks, stopped at the end.

A test that kills something uses a stack of its own, or leaves this one as it found it.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.overrides import without_cloud_clients

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start to press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: what fails for one fails for all. ARGS=--hypothesis-profile=random looks for others.
# Machines that are busy take long for an example.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("same")

# As the launcher and the workers import it: quicker, and without the cloud clients' warnings.
with without_cloud_clients():
    import apache_beam  # noqa: F401


TESTS = Path(__file__).parent
FOLDERS_THAT_SHARE = ("docs", "faults", "infra")
SHARED_STACK = {"kafka", "flink"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/faults; pytest asks no conftest below this one for them."""
    parser.addoption("--every_fault", action="store_true", help="run tests/faults whole, not only a choice of them")
    parser.addoption("--faults_seed", type=int, default=random.randrange(10**6), help="of order and random choices")
    parser.addoption("--faults_results", type=Path, default=None, help="JSON file to keep the figures in")
    parser.addoption("--soak_minutes", type=float, default=2.0, help="how long the soak (F16) takes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with a stack more time than their own deadlines add up to, and say which tests share a process."""
    for item in items:
        if item.get_closest_marker("stack") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
        item.add_marker(pytest.mark.xdist_group(process_group(item)))
    # The longest group begins first. ``--no-loadscope-reorder`` keeps this order.
    items.sort(key=lambda item: SHARED_STACK.isdisjoint(getattr(item, "fixturenames", ())))


def process_group(item: pytest.Item) -> str:
    """Return the group of tests that one process of pytest-xdist runs, so that what they share starts once.

    A session's fixture lives in one process: Terraform's folder, what the pages print, the stack of the faults, and for
    everything else that needs them the shared Kafka and Flink. Other tests are grouped by module.
    """
    folder = item.path.parent.relative_to(TESTS).as_posix()
    if folder in FOLDERS_THAT_SHARE:
        return folder
    return item.location[0] if SHARED_STACK.isdisjoint(getattr(item, "fixturenames", ())) else "stack"


def pytest_report_header(config: pytest.Config) -> str:
    """Which faults, in words that repeat the run."""
    return f"faults: --faults_seed={config.option.faults_seed}"


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """A running broker; tests make topics of their own."""
    with LocalKafka() as broker:
        yield broker


@pytest.fixture(scope="session")
def flink() -> Iterator[LocalFlink]:
    """A running cluster of one TaskManager with two slots, our connectors in its class path, checkpoints on disk."""
    with LocalFlink(task_managers=1, slots=2) as cluster:
        yield cluster
