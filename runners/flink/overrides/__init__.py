"""Every override of Beam internals. A replacement's docstring gives the reason and the measured gain.

``python -m tests.benchmarks.bundles --without=NAME`` measures a bundle without an override. Bundles of 16 user shards
have 48 events. The gains were measured on two busy cores, so their ratios say more than the figures.

The overrides are made for one Beam release: ``apply`` refuses another one, and a test compares the digests of the
source that each was written against. docs/newest-beam.md has the result of a run against the newest release
(``make test-newest-beam``). Beam is imported inside functions only, because ``without_cloud_clients`` has to act first.
"""

from typing import Final

from runners.flink.errors import LocalStackError
from runners.flink.overrides.cache_weight import CACHE_WEIGHT
from runners.flink.overrides.imports import without_cloud_clients
from runners.flink.overrides.metrics import OWN_METRICS, RESET_PROCESSOR
from runners.flink.overrides.override import Override
from runners.flink.overrides.sampler import START_UNTIMED, STOP_UNTIMED
from runners.flink.overrides.state import COMMIT_PIPELINED, KEEP_HANDLES, READ_BAG

__all__ = ["BEAM_VERSION", "OVERRIDES", "Override", "apply", "without_cloud_clients"]

BEAM_VERSION: Final = "2.70.0"
OVERRIDES: Final = (
    CACHE_WEIGHT,
    COMMIT_PIPELINED,
    KEEP_HANDLES,
    READ_BAG,
    RESET_PROCESSOR,
    OWN_METRICS,
    START_UNTIMED,
    STOP_UNTIMED,
)


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
    for override in OVERRIDES:
        override.install()
