"""Every exception class of a package derives from the package's root."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

from pipeline.errors import PipelineError
from runners.flink.errors import FlinkRunnerError
from transforms.domain.base.errors import EventTriggerError


@pytest.mark.parametrize(
    ("package", "root"),
    [("transforms", EventTriggerError), ("pipeline", PipelineError), ("runners", FlinkRunnerError)],
)
def test_every_exception_class_derives_from_the_root(package: str, root: type[Exception]) -> None:
    path = importlib.import_module(package).__path__
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(path, f"{package}.")]
    exceptions = {
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, BaseException) and member.__module__.startswith(f"{package}.")
    }
    assert root in exceptions
    assert [exception for exception in exceptions if not issubclass(exception, root)] == []
