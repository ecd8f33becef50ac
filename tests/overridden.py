"""Applies our overrides of Beam for the time of a context."""

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
    """Apply the overrides while the context is open. Tests share a process, so Beam's own functions come back."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _REPLACED:
            patch.setattr(owner, name, getattr(owner, name))  # puts Beam's own back at the end
        beam_overrides.apply()
        yield
