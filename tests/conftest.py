"""The real Kafka and Flink that tests marked ``stack`` share: the first test that needs them starts them.

They stop at the end of the session. A test that kills a process uses a stack of its own, or repairs the shared one.
"""

from __future__ import annotations

import logging
import random
import re
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from runners.flink.overrides import without_cloud_clients
from tests.flink_cluster import FlinkCluster
from tests.kafka_broker import KafkaBroker

# A shell starts background processes with SIGINT ignored, and so would be the processes that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# ``same`` tries the same examples in every run, so that a failure is everybody's; `make test-random` tries others.
# There is no deadline, because a busy machine takes long for an example.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("same")

# Imported as the launcher and the workers do it: quicker, and without the warnings of the cloud clients.
logging.disable(logging.WARNING)  # Beam's, about packages that nobody here needs; they would follow pytest's summary
with without_cloud_clients():
    import apache_beam  # noqa: F401
logging.disable(logging.NOTSET)


ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/faults, tests/hostile and tests/rules_oracle; pytest reads options from this conftest only."""
    parser.addoption("--every_fault", action="store_true", help="run tests/faults whole, not only a choice of them")
    parser.addoption("--faults_seed", type=int, default=random.randrange(10**6), help="of order and random choices")
    parser.addoption("--faults_results", type=Path, default=None, help="JSON file to keep the figures in")
    parser.addoption(
        "--kills",
        type=int,
        default=10,
        help="how many of F18's hundred kills this run makes, and how many F26 to F28 make",
    )
    parser.addoption(
        "--hostile_seeds", type=int, default=300, help="how many random edits tests/hostile tries of each kind"
    )
    parser.addoption("--oracle_events", type=int, default=1500, help="how many events tests/rules_oracle tries")
    parser.addoption("--soak_minutes", type=float, default=2.0, help="how long the soak (F16) takes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with a stack more time than their own deadlines add up to, and put the longest group first."""
    for item in items:
        if item.get_closest_marker("stack") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: process_group(item.nodeid.partition("::")[0]) != "stack")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to each process of pytest-xdist: all of them have to collect the same tests in the same order."""
    node.workerinput["faults_seed"] = node.config.option.faults_seed


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed of the run, in a process of pytest-xdist."""
    if hasattr(config, "workerinput"):
        config.option.faults_seed = config.workerinput["faults_seed"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have one process run all tests of a group. (xdist's own groups have no effect under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return process_group(nodeid.partition("::")[0])

    return GroupScheduling(config, log)


@cache
def process_group(module: str) -> str:
    """Return the group of a module's tests: one process runs a group, so that what its tests share starts once.

    All tests with a cluster are one group, because two clusters at a time are more than two cores carry.
    """
    path = ROOT / module
    folder = path.parent.name
    if folder in ("docs", "infra"):  # they share Terraform's folder, and the output of the pages' commands
        return folder
    text = path.read_text()
    if folder in ("integration", "faults") or re.search(r"\b(LocalFlink|FlinkCluster)\b", text):
        return "stack"
    return "broker" if re.search(r"\b(LocalKafka|KafkaBroker)\b", text) else module


def pytest_report_header(config: pytest.Config) -> str:
    """Name the option that repeats the run's choice and order of faults."""
    return f"faults: --faults_seed={config.option.faults_seed}"


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """A running broker; tests make topics of their own."""
    with KafkaBroker() as broker:
        yield broker


_FLINK = pytest.StashKey[FlinkCluster]()


@pytest.fixture(scope="session")
def flink(pytestconfig: pytest.Config) -> Iterator[FlinkCluster]:
    """A running cluster of one TaskManager with two slots, our connectors in its class path, checkpoints on disk."""
    with FlinkCluster(task_managers=1, slots=2) as cluster:
        pytestconfig.stash[_FLINK] = cluster
        yield cluster
        del pytestconfig.stash[_FLINK]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Repair the shared cluster, before any fixture submits a job to it."""
    cluster = item.config.stash.get(_FLINK, None)
    if cluster is not None:
        cluster.repair()
