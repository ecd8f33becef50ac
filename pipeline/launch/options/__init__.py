"""Every option of the pipeline: flags in, one frozen and checked ``Settings`` out. The only place with defaults."""

from pipeline.launch.options.fields import DIRECT_RUNNER, EXACTLY_ONCE, FLINK_RUNNER
from pipeline.launch.options.parsing import parse
from pipeline.launch.options.settings import Settings

__all__ = ["DIRECT_RUNNER", "EXACTLY_ONCE", "FLINK_RUNNER", "Settings", "parse"]
