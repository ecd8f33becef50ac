"""Beam with our overrides for a while, and as it came afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from apache_beam.runners.worker import bundle_processor, statecache, statesampler

from runners.flink import overrides as beam_overrides

_REPLACED = (
    (statecache, "get_deep_size"),
    (bundle_processor.FnApiUserStateContext, "commit"),
    (bundle_processor.FnApiUserStateContext, "reset"),
    (bundle_processor.SynchronousBagRuntimeState, "read"),
    (bundle_processor.BundleProcessor, "reset"),
    (bundle_processor.BundleProcessor, "monitoring_infos"),
    (statesampler.StateSampler, "start"),
    (statesampler.StateSampler, "stop"),
)


@contextmanager
def overridden() -> Iterator[None]:
    """The overrides hold while the context is open; tests share a process, in any order."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _REPLACED:
            patch.setattr(owner, name, getattr(owner, name))  # puts Beam's own back at the end
        beam_overrides.apply()
        yield
