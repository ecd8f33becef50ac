"""The exceptions of runners.

FlinkRunnerError
└── LocalStackError (also a RuntimeError)
    ├── FlinkSilentError
    └── NotFoundError
"""


class FlinkRunnerError(Exception):
    """The root of all exceptions of runners."""


class LocalStackError(FlinkRunnerError, RuntimeError):
    """Something the stack needs is missing, wrong or did not start.

    The message names the thing, the value that was found and what is allowed or needed.
    """


class UnsettledError(LocalStackError):
    """Flink answers that something failed inside it, as it may while a job changes its state."""


class NotFoundError(LocalStackError):
    """Flink does not know the resource that a request named."""


class FlinkSilentError(LocalStackError):
    """Flink's REST endpoint does not answer, for the reason ``why``."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"Flink at {url} does not answer: {why}")
        self.why = why
