"""Applies our overrides of Beam in a context, and holds digests of the Beam source that they were written against."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from runners.flink.overrides import OVERRIDES, beam_part

_HANDLES = {
    "bundle_processor.FnApiUserStateContext": "febd15312c4d2c3d",
    "bundle_processor.SynchronousBagRuntimeState": "975ad68a8d234d0a",
    "bundle_processor.ReadModifyWriteRuntimeState": "106f3652278f83e6",
    "bundle_processor.CombiningValueRuntimeState": "dc6ab56c662eeb68",
}
_CACHING_HANDLER = {"sdk_worker.GlobalCachingStateHandler": "0c95878795be5883"}
_PROCESS_BUNDLE = {"bundle_processor.BundleProcessor.process_bundle": "6a41161ebe7eade4"}
_SAMPLER = {"statesampler.StateSampler": "6f6bff93c4d9c0c0", **_PROCESS_BUNDLE}

# Digests of the parts of Beam that an override imitates or uses, by the override's name; and those of worker.py.
WRITTEN_AGAINST: Mapping[str, Mapping[str, str]] = {
    "cache_weight": {
        "statecache.get_deep_size": "da557bd7faffc13f",
        "statecache.WeightedValue": "edb8e7c733088c84",
        "statecache.StateCache": "8a67e40b941bd833",
    },
    "commit_pipelined": {
        **_HANDLES,
        **_CACHING_HANDLER,
        "sdk_worker.GrpcStateHandler": "d03e89160a6eba13",
        "sdk_worker._Future": "67a5534e1bd2e614",
        "sdk_worker._DeferredCall": "866a0bdfdc0257ea",
    },
    "keep_handles": _HANDLES,
    "read_bag": {**_HANDLES, **_CACHING_HANDLER},
    "reset_processor": {"bundle_processor.BundleProcessor.reset": "369c1884af108ef0", **_PROCESS_BUNDLE},
    "own_metrics": {"bundle_processor.BundleProcessor.monitoring_infos": "c36b13616451ab42", **_PROCESS_BUNDLE},
    "start_untimed": _SAMPLER,
    "stop_untimed": _SAMPLER,
    "worker.py": {
        "sdk_worker_main.create_harness": "2ee8acdb08bc1b6b",
        "sdk_worker_main.main": "fea9481fce5034ee",
    },
}


def changed_sources(written_against: Mapping[str, str]) -> dict[str, str]:
    """The parts of the installed Beam whose source has another digest: the digest found, or ``missing``, by name."""
    digests = {name: source_digest(name) for name in written_against}
    return {name: digest for name, digest in digests.items() if digest != written_against[name]}


def source_digest(name: str) -> str:
    """The first 16 hex digits of the SHA-256 of the source of a part of Beam's worker; ``missing`` without the part."""
    try:
        part = beam_part(name)
    except (ImportError, AttributeError):
        return "missing"
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]


@contextmanager
def overridden() -> Iterator[None]:
    """Apply the overrides while the context is open. Tests share a process, so Beam's own functions come back."""
    with pytest.MonkeyPatch.context() as patch:
        for target, replacement in OVERRIDES.items():
            owner, _, name = target.rpartition(".")
            patch.setattr(beam_part(owner), name, replacement)
        yield
