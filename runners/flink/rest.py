"""A small client of Flink's REST API."""

import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import requests

from runners.flink.errors import FlinkSilentError, LocalStackError, NotFoundError, UnsettledError

TERMINAL_STATES = frozenset({"FINISHED", "CANCELED", "FAILED"})
_POLL_S = 0.1
_MESSAGE_CHARACTERS = 8_000
_QUERY_CHARACTERS = 3_000  # Netty refuses a request line of more than 4,096


class FlinkRest:
    """Reads the state of a Flink cluster and controls its jobs.

    ``url`` is ``http://host:port``, ``timeout_s`` applies to each request. Methods return Flink's JSON, unchanged.
    Every failure is a LocalStackError with the path and Flink's message, a NotFoundError if Flink responds with 404.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()

    def overview(self) -> dict[str, Any]:
        """The cluster: ``taskmanagers``, ``slots-total``, ``slots-available``, ``jobs-running`` and so on."""
        return self._get("/overview")

    def configuration(self) -> dict[str, str]:
        """The JobManager's settings by key; Flink masks what may be secret."""
        return {entry["key"]: entry["value"] for entry in self._request("GET", "/jobmanager/config")}

    def setting_ms(self, key: str, default_ms: int) -> int:
        """A setting of the JobManager in ms; ``default_ms`` if it is not set, or with a unit."""
        value = self.configuration().get(key, "")
        return int(value) if value.isdigit() else default_ms

    def class_path(self) -> list[str]:
        """The entries of the JobManager's class path."""
        return list(self._get("/jobmanager/environment")["classpath"])

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs the cluster remembers: ``jid``, ``name``, ``state`` and timestamps."""
        return list(self._get("/jobs/overview")["jobs"])

    def job(self, job_id: str) -> dict[str, Any]:
        """A job with its vertices."""
        return self._get(f"/jobs/{quote(job_id)}")

    def exceptions(self, job_id: str) -> dict[str, Any]:
        """Why tasks of the job failed: ``root-exception`` and ``exceptionHistory``."""
        return self._get(f"/jobs/{quote(job_id)}/exceptions")

    def why(self, job_id: str) -> str:
        """The root exception's messages, those of Python included, without stack frames."""
        return _messages(str(self.exceptions(job_id).get("root-exception") or "no exception recorded"))

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        """Why the job failed, the newest first: ``timestamp`` [ms], ``stacktrace``, ``taskName`` and so on."""
        return list(self.exceptions(job_id)["exceptionHistory"]["entries"])

    def submitted_parallelism(self, job_id: str) -> int:
        """With how many subtasks the job was submitted; the adaptive scheduler may run it with fewer."""
        return int(self._get(f"/jobs/{job_id}/config")["execution-config"]["job-parallelism"])

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        """Checkpoint ``counts``, ``latest`` (completed, failed, savepoint, restored), ``summary`` and ``history``."""
        return self._get(f"/jobs/{quote(job_id)}/checkpoints")

    def checkpoint_config(self, job_id: str) -> dict[str, Any]:
        """The checkpoint settings the job really has."""
        return self._get(f"/jobs/{quote(job_id)}/checkpoints/config")

    def trigger_checkpoint(self, job_id: str) -> None:
        """Request a checkpoint now; ``checkpoints`` tells when it is complete."""
        self._post(f"/jobs/{quote(job_id)}/checkpoints", {"checkpointType": "CONFIGURED"})

    def task_managers(self) -> list[dict[str, Any]]:
        """The registered TaskManagers: ``id``, ``slotsNumber``, ``freeSlots``, ``memoryConfiguration`` and so on."""
        return list(self._get("/taskmanagers")["taskmanagers"])

    def vertex_metrics(self, job_id: str, vertex_id: str, names: Collection[str] = ()) -> dict[str, str]:
        """Metrics of a job's vertex, named ``<subtask>.<metric>``; without ``names``, all names with empty values."""
        return self._metrics(f"/jobs/{quote(job_id)}/vertices/{quote(vertex_id)}/metrics", names)

    def job_metrics(self, job_id: str, names: Collection[str] = ()) -> dict[str, str]:
        """Metrics of a job as a whole; without ``names``, all names with empty values."""
        return self._metrics(f"/jobs/{quote(job_id)}/metrics", names)

    def cancel(self, job_id: str) -> None:
        """Request the job's cancellation; ``wait_for_state`` waits for it."""
        self._request("PATCH", f"/jobs/{quote(job_id)}?mode=cancel")

    def stop(self, job_id: str, directory: str | None = None, *, deadline_s: float = 120.0) -> str:
        """Stop the job with a savepoint, without draining, and return the savepoint's path.

        ``directory`` defaults to the cluster's ``state.savepoints.dir``.
        """
        # Draining would send the end-of-time watermark, which drops processing-time timers.
        body = {"targetDirectory": directory, "drain": False}
        return self._savepoint(job_id, self._post(f"/jobs/{quote(job_id)}/stop", body)["request-id"], deadline_s)

    def savepoint(self, job_id: str, directory: str | None = None, *, deadline_s: float = 120.0) -> str:
        """Take a savepoint of a job that keeps running and return the savepoint's path."""
        body = {"target-directory": directory, "cancel-job": False}
        return self._savepoint(job_id, self._post(f"/jobs/{quote(job_id)}/savepoints", body)["request-id"], deadline_s)

    def dispose_savepoint(self, path: str, *, deadline_s: float = 120.0) -> None:
        """Delete a savepoint, with the cluster's access to it."""
        request_id = self._post("/savepoint-disposal", {"savepoint-path": path})["request-id"]
        self._result(f"/savepoint-disposal/{quote(request_id)}", deadline_s)

    def wait_for_state(self, job_id: str, states: Collection[str], deadline_s: float) -> str:
        """Wait until the job is in one of ``states`` (RUNNING, CANCELED, ...) and return it.

        RUNNING includes that every task runs: Flink calls a job RUNNING long before.

        Raises:
            LocalStackError: after ``deadline_s`` seconds, or at once with the root exception if the job reached another
                terminal state.
        """
        give_up = time.monotonic() + deadline_s
        while True:
            try:
                job = self.job(job_id)
            except UnsettledError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_POLL_S)
                continue
            state = str(job["state"])
            tasks = {vertex["name"]: vertex["status"] for vertex in job["vertices"]}
            if state in states and (state != "RUNNING" or all(task == "RUNNING" for task in tasks.values())):
                return state
            if state in TERMINAL_STATES and state not in states:
                raise LocalStackError(f"job {job_id} is {state}, not {'/'.join(states)}: {self.why(job_id)}")
            if time.monotonic() > give_up:
                raise LocalStackError(
                    f"job {job_id} is {state} with tasks {tasks} after {deadline_s:g} s, not {'/'.join(states)}: "
                    f"{self.why(job_id)}"
                )
            time.sleep(_POLL_S)

    def _savepoint(self, job_id: str, request_id: str, deadline_s: float) -> str:
        path = f"/jobs/{quote(job_id)}/savepoints/{quote(request_id)}"
        return str(self._result(path, deadline_s)["location"])

    def _result(self, path: str, deadline_s: float) -> dict[str, Any]:
        """What an operation that Flink does in the background ended with."""
        give_up = time.monotonic() + deadline_s
        while True:
            result = self._get(path)
            if result["status"]["id"] == "COMPLETED":
                operation = dict(result.get("operation") or {})
                if "failure-cause" not in operation:
                    return operation
                raise LocalStackError(
                    f"{path}: failed: {_messages(str(operation['failure-cause'].get('stack-trace')))}"
                )
            if time.monotonic() > give_up:
                raise LocalStackError(f"{path}: not done within {deadline_s:g} s")
            time.sleep(_POLL_S)

    def _metrics(self, path: str, names: Collection[str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for query in _queries(names) or [""]:
            values |= {metric["id"]: metric.get("value", "") for metric in self._request("GET", path + query)}
        return values

    def _get(self, path: str) -> dict[str, Any]:
        return dict(self._request("GET", path))

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return dict(self._request("POST", path, body))

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        try:
            response = self._session.request(method, self.url + path, json=body, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise FlinkSilentError(self.url, _why_not(error)) from error
        try:
            content = response.json()
        except ValueError:
            if response.ok:
                raise LocalStackError(f"{self.url} answers, but not as Flink does: {response.text[:100]!r}") from None
            content = {"errors": [response.text[:2000]]}
        if not response.ok:
            errors = content.get("errors") if isinstance(content, dict) else None
            message = _messages("\n".join(str(error) for error in errors or ["no message"]))
            status = response.status_code
            kind = NotFoundError if status == 404 else UnsettledError if status >= 500 else LocalStackError
            raise kind(f"{method} {path}: HTTP {response.status_code}: {message}")
        return content


def _queries(names: Collection[str]) -> list[str]:
    """Query strings for all metrics, none longer than Flink accepts in a request."""
    queries: list[str] = []
    for name in names:
        quoted = quote(name)
        if queries and len(queries[-1]) + len(quoted) < _QUERY_CHARACTERS:
            queries[-1] += f",{quoted}"
        else:
            queries.append(f"?get={quoted}")
    return queries


def _why_not(error: requests.RequestException) -> str:
    """Why a request got no answer, without the layers of libraries around it."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    innermost: BaseException = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    return (isinstance(innermost, OSError) and innermost.strerror) or str(innermost) or type(innermost).__name__


def root_cause(trace: str) -> str:
    """The innermost message of a Java stack trace; of a Python traceback within it, the error."""
    lines = [line for line in trace.splitlines() if not line.startswith(("\tat ", "\t... "))]
    starts = [number for number, line in enumerate(lines) if line.startswith("Caused by: ")] or [0]
    first, *more = lines[starts[-1] :] or ["no reason given"]
    errors = [line for line in more if line.strip() and not line.startswith((" ", "\t"))]
    return errors[-1] if "Traceback (most recent call last)" in first and errors else first.removeprefix("Caused by: ")


def _messages(trace: str) -> str:
    """A Java stack trace without its frames: the error and its causes, Python tracebacks included."""
    lines = [line for line in trace.splitlines() if not line.startswith(("\tat ", "\t... "))]
    return "\n".join(lines)[:_MESSAGE_CHARACTERS]
