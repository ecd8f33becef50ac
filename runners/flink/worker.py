"""Starts a Python SDK harness for Beam's PROCESS environment (console script ``event-trigger-worker``).

The TaskManager starts this program for each harness. The program requests the pipeline options from the runner, sets
the environment that Beam's ``sdk_worker_main`` expects from its container's boot program, and runs the harness in this
process. Nothing is staged or installed: the harness runs the code that is installed here. Beam's own worker pool would
start harnesses whose state cache is off; here it is on.

Environment: ``EVENT_TRIGGER_WORKER_LOG_DIR`` names a folder for logs, stdout and stderr (``worker-<id>-<pid>.log``;
without it the runner drops all output), ``EVENT_TRIGGER_BEAM_OVERRIDES`` is ``on`` (default) or ``off``.
``EVENT_TRIGGER_LOG_LEVEL`` is the level of our own logs (default INFO; with DEBUG each action is
logged), ``EVENT_TRIGGER_LOG_USERS`` is ``hash`` (default) or ``id``. ``EVENT_TRIGGER_WORKER_SOCKET`` has the worker
run as another user (``starter.py``).

SIGUSR1 has a worker write the stacks of its threads to its log.
"""

import argparse
import contextlib
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from runners.flink import logs, starter
from runners.flink.errors import LocalStackError
from runners.flink.redaction import without_secrets

# Beam is not imported here: that takes seconds, and wrong settings should fail at once.

LOG_DIR_VARIABLE = "EVENT_TRIGGER_WORKER_LOG_DIR"
OVERRIDES_VARIABLE = "EVENT_TRIGGER_BEAM_OVERRIDES"
LOG_LEVEL_VARIABLE = "EVENT_TRIGGER_LOG_LEVEL"
LOG_USERS_VARIABLE = "EVENT_TRIGGER_LOG_USERS"
DEFAULT_CACHE_MB = 256
_PARENT_POLL_S = 0.5
_PROVISION_S = 30.0
# After the runner has closed the control channel a worker has nothing to lose. The runner closes its other servers one
# after the other and waits for each as long as the worker holds a connection, the canceled task with it: a second where
# beam-overrides.jar is, a minute where it is not.
_END_S = 10.0
# Python's default is 5 ms. On a busy core every other thread of a worker waits this long for each of its steps, also
# the thread that reads the user API's responses. A tenth of it lets a worker handle 1.5 times as many new users
# (docs/performance.md).
_SWITCH_INTERVAL_S = 0.0005
# An experiment of the pipeline names a module that its steps need. It is imported before the worker connects, while
# the job starts: otherwise the first events wait for it, half a second of CPU in each worker.
IMPORT_EXPERIMENT = "event_trigger_import="


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a harness until the runner closes its control channel; ends the process with 0, or 1 after an error."""
    words = list(sys.argv[1:] if argv is None else argv)
    if from_socket := words == [starter.FROM_SOCKET]:
        words = starter.take_request()
    arguments = _parse(words)
    if not from_socket:
        starter.end_with_parent(os.getppid())
        _open_log(arguments.id)
        if path := os.environ.get(starter.SOCKET_VARIABLE):
            starter.stand_in(words, path)
    for stream in (sys.stdout, sys.stderr):
        # SIGTERM ends the process at once; printed lines have to be in the file by then.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    fields = {"worker": arguments.id, "pid": os.getpid()}
    faulthandler.register(signal.SIGUSR1)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    status = 1
    try:
        _log_as_json(fields)
        _run(arguments, fields)
        status = 0
    except BaseException:  # noqa: BLE001  # every error is reported, and the process ends with 1
        sys.stderr.write(without_secrets(traceback.format_exc()))
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: it would wait for pool threads that may be blocked in user code.
        os._exit(status)


def harness_environment(arguments: argparse.Namespace, provision: Any) -> dict[str, str]:
    """The environment for ``sdk_worker_main.create_harness``, from the command line and the runner's ProvisionInfo.

    Raises:
        LocalStackError: an endpoint is missing.
    """
    from google.protobuf import json_format, text_format

    def endpoint(name: str) -> str:
        descriptor = getattr(provision, f"{name}_endpoint")
        url = descriptor.url or getattr(arguments, f"{name}_endpoint", None)
        if not url:
            raise LocalStackError(f"worker {arguments.id}: neither the runner nor --{name}_endpoint names an endpoint")
        descriptor.url = url
        return str(text_format.MessageToString(descriptor))

    environment = {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json.dumps(_with_cache(_integers(json_format.MessageToDict(provision.pipeline_options)))),
        "LOGGING_API_SERVICE_DESCRIPTOR": endpoint("logging"),
        "CONTROL_API_SERVICE_DESCRIPTOR": endpoint("control"),
        "RUNNER_CAPABILITIES": " ".join(provision.runner_capabilities),
    }
    if provision.status_endpoint.url:
        environment["STATUS_API_SERVICE_DESCRIPTOR"] = endpoint("status")
    return environment


def _run(arguments: argparse.Namespace, fields: dict[str, Any]) -> None:
    from runners.flink import overrides

    setting = _setting(OVERRIDES_VARIABLE, "on", ("on", "off"))
    started = time.monotonic()
    with overrides.without_cloud_clients():
        from apache_beam.runners.worker import sdk_worker_main
    if setting == "on":
        overrides.apply()
    imported = time.monotonic()

    environment = harness_environment(arguments, _provision(arguments))
    options = json.loads(environment["PIPELINE_OPTIONS"])
    fields["job"] = options.get("beam:option:job_name:v1")
    provisioned = time.monotonic()
    _import_early(options)
    connecting = time.monotonic()
    log_handler, harness, _options = sdk_worker_main.create_harness(environment)
    if log_handler:
        logs.format_before(log_handler, _formatter(fields))
    sdk_worker_main._FN_LOG_HANDLER = log_handler  # flushed by Beam when it ends a stuck harness
    logging.getLogger(__name__).info(
        "worker %s (pid %d): Beam imported in %.1f s, steps in %.1f s, connected in %.1f s, overrides %s",
        arguments.id, os.getpid(), imported - started, connecting - provisioned,
        provisioned - imported + time.monotonic() - connecting, setting,
    )  # fmt: skip
    _end_soon_after(harness, _END_S)
    try:
        harness.run()
    finally:
        if log_handler:
            log_handler.close()


def _import_early(options: dict[str, Any]) -> None:
    """Import what the pipeline names. What cannot be imported fails the job where Beam needs it, with its reason."""
    for experiment in options.get("beam:option:experiments:v1") or ():
        if experiment.startswith(IMPORT_EXPERIMENT):
            with contextlib.suppress(ImportError):
                importlib.import_module(experiment.removeprefix(IMPORT_EXPERIMENT))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="event-trigger-worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--id", required=True, help="worker id, given by the runner")
    parser.add_argument("--provision_endpoint", required=True, help="host:port")
    for name in ("logging", "control", "artifact"):
        parser.add_argument(f"--{name}_endpoint", help="host:port, for a runner that does not provision it")
    # Runners pass more than a container's boot program has to know (e.g. --semi_persist_dir).
    return parser.parse_known_args(argv)[0]


def _provision(arguments: argparse.Namespace) -> Any:
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        response = service.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", arguments.id)],
            timeout=_PROVISION_S,
            wait_for_ready=True,
        )
    return response.info


def _with_cache(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the cross-bundle state cache on. With Beam's default of 0 MB each bundle reads all state."""
    key = "beam:option:max_cache_memory_usage_mb:v1"
    return {**options, key: options.get(key) or DEFAULT_CACHE_MB}


def _integers(value: Any) -> Any:
    """Whole numbers as int: protobuf's Struct has only doubles, and Beam's option parser refuses ``512.0``."""
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _end_soon_after(harness: Any, longest_s: float) -> None:
    """End this process ``longest_s`` after the harness's control channel has closed, if it has not ended by itself.

    A thread that hangs in a bundle or in a step's teardown would keep it alive. The log then says where it hangs.
    """

    def watch() -> None:
        while not getattr(harness, "_alive", False):
            time.sleep(_PARENT_POLL_S)
        while harness._alive:
            time.sleep(_PARENT_POLL_S)
        # Unlike a thread of ours this one needs no interpreter lock, which the hanging thread may hold.
        faulthandler.dump_traceback_later(longest_s, exit=True)

    threading.Thread(target=watch, name="end-soon-after-control", daemon=True).start()


def _open_log(worker_id: str) -> None:
    folder = os.environ.get(LOG_DIR_VARIABLE)
    if folder:
        path = Path(folder, f"worker-{worker_id.replace('/', '_')}-{os.getpid()}.log")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


def _log_as_json(fields: dict[str, Any]) -> None:
    """Write log records to the worker's own log too, beside its prints; Beam sends them to the TaskManager's log."""
    level = _setting(LOG_LEVEL_VARIABLE, "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
    logging.getLogger("event_trigger").setLevel(level)
    if os.environ.get(LOG_DIR_VARIABLE):
        handler = logging.StreamHandler()
        handler.setFormatter(_formatter(fields))
        logging.getLogger().addHandler(handler)


def _formatter(fields: dict[str, Any]) -> logging.Formatter:
    return logs.formatter(fields, show_users=_setting(LOG_USERS_VARIABLE, "hash", ("hash", "id")) == "id")


def _setting(variable: str, default: str, allowed: Sequence[str]) -> str:
    """The value of an environment variable."""
    value = os.environ.get(variable, default)
    if value not in allowed:
        raise LocalStackError(f"{variable}={value!r}; allowed: {', '.join(allowed)}")
    return value


if __name__ == "__main__":
    main()
