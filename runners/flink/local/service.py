"""What Flink, Kafka and the others have in common: they start, stop, and leave nothing behind."""

import abc
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from runners.flink.errors import LocalStackError
from runners.flink.local.processes import Process, remove_folder, temporary_folder


class Service(abc.ABC):
    """A service on this machine with a work folder and a process; a context manager that starts and stops it.

    The service works in a temporary folder that ``stop`` removes. If the start fails halfway, the context manager stops
    what has started.
    """

    name: ClassVar[str]
    grace_s: ClassVar[float] = 10.0
    """How long the process may take to end before it is killed."""

    def __init__(self) -> None:
        self._work_dir: Path | None = None
        self._process: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def work_dir(self) -> Path:
        """The folder with everything that the service writes: configuration, logs, data."""
        if self._work_dir is None:
            raise LocalStackError(f"{self.name}: not started")
        return self._work_dir

    @abc.abstractmethod
    def start(self) -> None:
        """Start the service and return when it is ready for use.

        Raises:
            LocalStackError: it did not start; with the end of its log.
        """

    def stop(self) -> None:
        """Stop the process and remove the temporary folder. May be called twice."""
        if self._process is not None:
            self._process.stop(self.grace_s)
        if self._work_dir is not None:
            remove_folder(self._work_dir)
        self._process = self._work_dir = None

    def _open_work_dir(self) -> Path:
        """Make the work folder; it is there afterwards, also as ``work_dir``."""
        if self._work_dir is not None:
            raise LocalStackError(f"{self.name}: is already started")
        self._work_dir = temporary_folder(f"event-trigger-{self.name.lower().replace(' ', '-')}-")
        return self._work_dir
