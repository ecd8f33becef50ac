"""The root of the exceptions of this package, and those that several parts raise.

The command line turns them into one line on standard error and an exit code.
"""

from __future__ import annotations

from transforms.domain.base.errors import EventTriggerError


class PipelineError(EventTriggerError):
    """The launcher, a command or the page cannot do what it was asked for."""


class SubmissionError(PipelineError, RuntimeError):
    """Flink or the job server refused the job, or the job failed at its start; the message says why."""


class OptionError(PipelineError, ValueError):
    """An option that cannot be used: the message names it, its value and what is allowed."""
