from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from apache_beam.version import __version__

from runners.flink.errors import LocalStackError
from runners.flink.overrides import BEAM_VERSION, OVERRIDES, apply, without_cloud_clients
from tests.overridden import WRITTEN_AGAINST, changed_sources, source_digest


@pytest.mark.parametrize("name", WRITTEN_AGAINST)
def test_beam_has_the_source_that_the_overrides_were_written_against(name: str) -> None:
    changed = changed_sources(WRITTEN_AGAINST[name])
    assert changed == {}, (
        f"Beam {__version__} has other source than {name} was written against. Compare these parts with Beam "
        f"{BEAM_VERSION}, adapt {name}, measure its gain again (python -m tests.benchmarks.bundles --without={name}), "
        f"and only then commit the new digests: {changed}"
    )


@pytest.mark.parametrize(("target", "replacement"), OVERRIDES.items())
def test_the_replaced_function_is_among_the_digests(target: str, replacement: Callable[..., Any]) -> None:
    owner, _, _ = target.rpartition(".")
    assert {target, owner} & WRITTEN_AGAINST[replacement.__name__].keys()


@pytest.mark.parametrize("replacement", [*OVERRIDES.values(), without_cloud_clients])
def test_every_override_has_its_reason_and_its_measured_gain(replacement: object) -> None:
    assert "\n    Why: " in str(replacement.__doc__)
    assert "\n    Gain: " in str(replacement.__doc__)


def test_a_part_that_beam_no_longer_has_is_missing() -> None:
    assert source_digest("statecache.NoSuchThing") == "missing"
    assert source_digest("no_such_module.Thing") == "missing"


def test_another_beam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apache_beam.version.__version__", "2.71.0")
    with pytest.raises(LocalStackError, match=r"version 2\.71\.0 found, .*made for 2\.70\.0.*OVERRIDES=off"):
        apply()
