"""``--faults_seed`` sets the order and every random choice, ``--faults_results`` names the file for the figures.

Tests marked ``every_fault`` run with ``--every_fault`` only, which is how ``make test-faults`` asks for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.experiment import Result, write
from tests.faults.stack import Stack, running_stack
from tests.kafka_broker import KafkaBroker


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    faults = [item for item in items if Path(__file__).parent in item.path.parents]
    others = [item for item in items if item not in faults]
    if not config.option.every_fault:
        left_out = [item for item in faults if item.get_closest_marker("every_fault")]
        faults = [item for item in faults if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in faults:
        if "soak" in item.name:
            item.add_marker(pytest.mark.timeout(900 + 2 * 60 * config.option.soak_minutes), append=False)
    faults.sort(key=lambda item: item.nodeid)
    random.Random(config.option.faults_seed).shuffle(faults)
    items[:] = faults + others  # they take long: the earlier they begin, the sooner all is done


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed."""
    return int(request.config.option.faults_seed)


@pytest.fixture(scope="session")
def stack(kafka: KafkaBroker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two JobManagers, two TaskManagers, ZooKeeper, S3. Every fault repairs what it has broken."""
    results: Path | None = pytestconfig.option.faults_results
    dumps = results.parent / "faults-dumps" if results else tmp_path_factory.mktemp("dumps")
    with running_stack(kafka, dumps) as running:
        yield running


@pytest.fixture
def results(request: pytest.FixtureRequest) -> Iterator[Callable[[Result], Result]]:
    """A function that keeps a result if the test passes."""
    given: list[Result] = []

    def keep(result: Result) -> Result:
        given.append(result)
        return result

    yield keep
    call = getattr(request.node, "call_report", None)
    for result in given:
        print(result.to_json())
        if call is not None and call.passed and request.config.option.faults_results is not None:
            write(request.config.option.faults_results, result)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        item.call_report = report  # type: ignore[attr-defined]
