"""Bundles do not wait for Beam's sampler of times."""

import threading
from typing import Any


def start_untimed(sampler: Any) -> None:
    """Make a bundle's sampler the current thread's, which metrics go through. All its times stay 0.

    Why: to measure the time spent in each transform, Beam starts a thread for each bundle. The thread wakes up every
    few milliseconds, less and less often. The end of the bundle waits for it: a tenth of the time of the bundle and
    a millisecond on average, twice that at most. We do not use the times.

    Gain: 3.0 instead of 3.5 ms of CPU for a bundle of one event. Together with ``own_metrics``, a bundle of 16 user
    shards takes 14.0 instead of 15.2 ms of CPU, and 15.0 instead of 22.1 ms from its last byte of input to its answer
    (docs/performance.md).
    """
    from apache_beam.runners.worker import statesampler

    sampler.tracked_thread = threading.current_thread()
    statesampler.set_current_tracker(sampler)
    sampler.started = True


def stop_untimed(sampler: Any) -> None:
    """Take the sampler from the thread, without Beam's wait for the thread that samples.

    Why: see ``start_untimed``.

    Gain: see ``start_untimed``.
    """
    from apache_beam.runners.worker import statesampler

    statesampler.set_current_tracker(None)
    sampler.finished = True
