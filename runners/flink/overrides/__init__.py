"""Every override of Beam internals. A replacement's docstring gives the reason and the measured gain.

``python -m tests.benchmarks.bundles --without=NAME`` measures a bundle without an override. Bundles of 16 user shards
have 48 events. The gains were measured on two busy cores, so their ratios say more than the figures.

The overrides are made for one Beam release: ``apply`` refuses another one, and a test compares the digests of the
source that each was written against. docs/newest-beam.md has the result of a run against the newest release
(``make test-newest-beam``). Beam is imported inside functions only, because ``without_cloud_clients`` has to act first.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from runners.flink.errors import LocalStackError
from runners.flink.overrides.cache_weight import cache_weight
from runners.flink.overrides.imports import without_cloud_clients
from runners.flink.overrides.metrics import own_metrics, reset_processor
from runners.flink.overrides.sampler import start_untimed, stop_untimed
from runners.flink.overrides.state import commit_pipelined, keep_handles, read_bag

__all__ = ["BEAM_VERSION", "OVERRIDES", "apply", "beam_part", "without_cloud_clients"]

BEAM_VERSION: Final = "2.70.0"

# The replacement of each function of Beam, named from apache_beam.runners.worker on.
OVERRIDES: Mapping[str, Callable[..., Any]] = {
    "statecache.get_deep_size": cache_weight,
    "bundle_processor.FnApiUserStateContext.commit": commit_pipelined,
    "bundle_processor.FnApiUserStateContext.reset": keep_handles,
    "bundle_processor.SynchronousBagRuntimeState.read": read_bag,
    "bundle_processor.BundleProcessor.reset": reset_processor,
    "bundle_processor.BundleProcessor.monitoring_infos": own_metrics,
    "statesampler.StateSampler.start": start_untimed,
    "statesampler.StateSampler.stop": stop_untimed,
}


def apply() -> None:
    """Install all overrides in this process.

    Raises:
        LocalStackError: Beam is not the release that they were written for.
    """
    from apache_beam.version import __version__ as installed

    if installed != BEAM_VERSION:
        raise LocalStackError(
            f"apache-beam: version {installed} found, but the overrides of its internals are made for {BEAM_VERSION}; "
            "check runners/flink/overrides against the new source or set EVENT_TRIGGER_BEAM_OVERRIDES=off"
        )
    for target, replacement in OVERRIDES.items():
        owner, _, name = target.rpartition(".")
        setattr(beam_part(owner), name, replacement)


def beam_part(name: str) -> Any:
    """A module, class or function of Beam's worker, by its name from ``apache_beam.runners.worker`` on.

    Raises:
        ImportError: Beam has no such module.
        AttributeError: the module has no such part.
    """
    module, *attributes = name.split(".")
    return functools.reduce(getattr, attributes, importlib.import_module(f"apache_beam.runners.worker.{module}"))
