"""``event-trigger run``: launches the job."""

from __future__ import annotations

from pipeline.cli.parameters import AllOptions
from pipeline.launch.run import launch


def run(*, options: AllOptions = AllOptions()) -> int:
    """Turn a stream of user-tracking events into actions.

    Without options it runs the bundled stream and its sample rules on the embedded runner, then prints a summary.
    With --runner=FlinkRunner --bootstrap_servers=… --rules=… it runs on Flink.

    0: done; 1: the job failed, or Flink refused it; 2: an option, a rule or a topic cannot be used.
    """
    return launch(options.flags)
