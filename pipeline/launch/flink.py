"""Running on Flink: submit through our job server, then follow the job through Flink's REST API."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.console import complain, say, warn
from pipeline.errors import OptionError, SubmissionError
from pipeline.kafka.security import AWS_MSK_IAM
from pipeline.launch import graph
from pipeline.launch.options import EXACTLY_ONCE, Settings
from pipeline.launch.preflight import check_cluster, check_kafka, check_topics
from pipeline.launch.transactions import checkpoint_settings
from runners.flink.artifacts import msk_iam_jar
from runners.flink.errors import LocalStackError
from runners.flink.job_server import JobServer
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.processes import remove_folder, temporary_folder
from runners.flink.rest import TERMINAL_STATES, FlinkRest, root_cause
from runners.flink.worker import IMPORT_EXPERIMENT
from transforms.domain.base.secret_references import variables_in
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination
from transforms.handle_events import HandleEvents

_SUBMIT_S: Final = 120.0
_FOLLOW_EVERY_S: Final = 1.0
_STARTING_EVERY_S: Final = 0.2
_WAITING_EVERY_S: Final = 10.0

# Writing a plan to a file needs no Flink, but the translator needs an address.
_NO_MASTER: Final = "127.0.0.1:1"


def run_on_flink(
    settings: Settings,
    rule_set: RuleSet,
    destinations: tuple[Destination, ...] = (),
    on_running: Callable[[], None] = lambda: None,
) -> int:
    """Submit the pipeline and follow the job until it ends; returns the exit code.

    ``on_running`` is called once the job runs.

    Raises:
        OptionError: an option cannot be used with this cluster or Kafka.
        LocalStackError: Flink does not answer, or cannot keep what the job promises.
        SubmissionError: Flink refused the job, or the job failed at its start.
    """
    with contextlib.ExitStack() as stack:
        master = settings.flink_master
        if settings.plan_file is not None:
            submit(settings, rule_set, master or _NO_MASTER, destinations)
            return 0
        if check_kafka(settings):
            check_topics(settings, rule_set.rules)
        cluster = None
        if master is None:
            cluster = stack.enter_context(local_cluster(settings))
            master = cluster.flink_master
        rest = FlinkRest(f"http://{master}")
        # The job server would retry for a minute, and fail later at a Flink of another version.
        check_cluster(settings, rest)
        if settings.starting_offsets == "latest" and settings.savepoint_path is None:
            warn("--starting_offsets is latest: a failure before the first checkpoint skips what came until then")
        say(f"submitting {settings.job_name!r} to Flink at {master}")
        job_id = submit(settings, rule_set, master, destinations)
        try:
            wait_until_running(rest, job_id, settings.savepoint_path)
        except KeyboardInterrupt:
            say(f"leaving; job {job_id} goes on if its cluster does, it was not seen running", job_id=job_id)
            return 0
        say(f"job {job_id} is running: http://{master}/#/job/{job_id}/overview", job_id=job_id)
        on_running()
        return 0 if settings.detached else follow(rest, job_id, cluster)


def local_cluster(settings: Settings) -> LocalFlink:
    """A Flink cluster on this machine with as many slots as the job needs."""
    say("starting a local Flink cluster (the first time it downloads about 230 MB)")
    return LocalFlink(task_managers=1, slots=settings.parallelism, long_lived=True)


def submit(settings: Settings, rule_set: RuleSet, flink_master: str, destinations: tuple[Destination, ...] = ()) -> str:
    """Submit the pipeline to Flink at ``flink_master`` (HOST:PORT).

    Returns:
        The Flink job id; with ``settings.plan_file`` an empty string, since nothing is submitted.

    Raises:
        SubmissionError: the job server or Flink refused the job.
        LocalStackError: Java, the connectors or the job server are missing or do not start.
    """
    jars = [msk_iam_jar()] if settings.kafka_sasl_mechanism == AWS_MSK_IAM else []
    secrets = secret_variables(settings, destinations)
    job_server = JobServer(flink_master, config=job_settings(settings), jars=jars, without=secrets)
    with job_server as server, _temporary_files():
        pipeline = beam.Pipeline(options=PipelineOptions(beam_options(settings, server.job_endpoint)))
        graph.build(pipeline, settings, rule_set, destinations)
        try:
            # Our job server reports DONE as soon as Flink has taken the job.
            pipeline.run().wait_until_finish()
        except RuntimeError as error:
            raise SubmissionError(_refusal(settings, str(error))) from error
        return "" if settings.plan_file is not None else server.wait_submitted(_SUBMIT_S)


def secret_variables(settings: Settings, destinations: tuple[Destination, ...]) -> set[str]:
    """The environment variables that options and destinations refer to as secrets."""
    given = [str(value) for value in settings.model_dump().values()]
    given += [destination.model_dump_json() for destination in destinations]
    return set().union(*map(variables_in, given))


@contextlib.contextmanager
def _temporary_files() -> Iterator[None]:
    """Give Beam a folder for its temporary files and remove it afterwards, because Beam leaves them behind."""
    previous, folder = tempfile.tempdir, temporary_folder("event-trigger-submission-")
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = previous
        remove_folder(folder)


def job_settings(settings: Settings) -> dict[str, str]:
    """The job's Flink settings for which Beam has no flag, in addition to the shipped configuration."""
    if settings.delivery_guarantee != EXACTLY_ONCE:
        return {}
    return checkpoint_settings(settings.checkpointing_interval_ms, settings.transaction_timeout_ms)


def beam_options(settings: Settings, job_endpoint: str) -> list[str]:
    """The flags of Beam and its Flink runner, in Beam's spelling (``mills``)."""
    options = [
        "--runner=PortableRunner",
        f"--job_endpoint={job_endpoint}",
        f"--job_name={settings.job_name}",
        "--streaming",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps({'command': worker_command(settings)})}",
        f"--sdk_worker_parallelism={settings.workers_per_task_manager}",
        f"--environment_cache_millis={settings.worker_keep_ms}",
        f"--max_cache_memory_usage_mb={settings.state_cache_mb}",
        f"--parallelism={settings.parallelism}",
        f"--max_parallelism={settings.max_parallelism}",
        f"--checkpointing_interval={settings.checkpointing_interval_ms}",
        # The spec asks for a pause of 30 s at an interval of 60 s; other intervals get the same share.
        f"--min_pause_between_checkpoints={settings.checkpointing_interval_ms // 2}",
        f"--max_bundle_time_mills={settings.bundle_time_ms}",
        f"--max_bundle_size={settings.bundle_size}",
        # Otherwise a barrier does not wait for open bundles, and their outputs go into the checkpoint.
        "--finish_bundle_before_checkpointing",
        "--faster_copy",
        # Sends elements to Python in pieces of 16 KB, not at the bundle's end. The similar time limit loses data.
        "--experiments=data_buffer_size_limit=16384",
        # A worker imports the stateful step while the job starts, not while the first events wait.
        f"--experiments={IMPORT_EXPERIMENT}{HandleEvents.__module__}",
        # Otherwise each submission runs pip freeze, which takes seconds, for a list that no worker reads.
        "--experiments=disable_logging_submission_environment",
    ]
    if settings.savepoint_path is not None:
        options.append(f"--savepoint_path={settings.savepoint_path}")
    if settings.allow_non_restored_state:
        options.append("--allow_non_restored_state")
    if settings.plan_file is not None:
        options.append(f"--experiments=event_trigger_plan_file={settings.plan_file.absolute()}")
    return options


def worker_command(settings: Settings) -> str:
    """The program that starts a Python worker: the option's, or this environment's.

    Raises:
        OptionError: there is neither.
    """
    if settings.worker_command is not None:
        return settings.worker_command
    beside = Path(sys.executable).parent / "event-trigger-worker"
    program = str(beside) if beside.exists() else shutil.which("event-trigger-worker")
    if program is None:
        raise OptionError("--worker_command is missing and event-trigger-worker is not installed: install this package")
    return program


def follow(rest: FlinkRest, job_id: str, cluster: LocalFlink | None = None) -> int:
    """Wait for the job's end; returns the exit code: 0 finished or cancelled, 1 failed. Ctrl-C leaves it running.

    TaskManagers of this launch's own ``cluster`` that end meanwhile are started again.
    """
    try:
        while True:
            if cluster is not None and cluster.replace_dead_task_managers():
                warn("a TaskManager has ended; another is started and takes the job over")
            state = rest.job(job_id)["state"]
            if state in TERMINAL_STATES:
                if state == "FAILED":
                    cause = root_cause(str(rest.exceptions(job_id).get("root-exception") or ""))
                    complain(f"job {job_id} failed: {cause}", job_id=job_id)
                    return 1
                say(f"job {job_id} is {state}", job_id=job_id)
                return 0
            time.sleep(_FOLLOW_EVERY_S)
    except KeyboardInterrupt:
        say(f"leaving; job {job_id} goes on if its cluster does", job_id=job_id)
        return 0


def wait_until_running(rest: FlinkRest, job_id: str, path: str | None = None) -> None:
    """Wait until every step runs and a checkpoint is complete: before, a job may fail and restart for ever.

    What is wrong with a job fails at each attempt. A single failure may be a lost slot or machine.

    Args:
        rest: the cluster.
        job_id: the job.
        path: the savepoint that it starts from.

    Raises:
        SubmissionError: the job, or its checkpoints, have failed twice, or the job has ended.
    """
    say(f"job {job_id} {f'is restoring from {path}' if path else 'is starting'}", job_id=job_id)
    start, requested, next_s = f"to start{f' from {path}' if path else ''}", False, time.monotonic() + _WAITING_EVERY_S
    while True:
        job, failures, checkpoints = rest.job(job_id), rest.failures(job_id), rest.checkpoints(job_id)
        goes_on = "" if job["state"] in TERMINAL_STATES else "; it tries again until it is cancelled"
        if goes_on == "" or len(failures) > 1:
            cause = root_cause(failures[0]["stacktrace"]) if failures else f"it is {job['state']}"
            raise SubmissionError(f"job {job_id} failed {start}: {cause}{goes_on}")
        # Flink also counts as failed, without a place in the history, what was due before the steps ran.
        if sum(checkpoint["status"] == "FAILED" for checkpoint in checkpoints["history"]) > 1:
            cause = checkpoints["latest"]["failed"].get("failure_message") or "no reason given"
            raise SubmissionError(f"job {job_id} runs, but its checkpoints fail: {cause}{goes_on}")
        tasks = [vertex["status"] for vertex in job["vertices"]]
        runs = job["state"] == "RUNNING" and set(tasks) == {"RUNNING"}
        if runs and checkpoints["latest"].get("completed") is not None:
            return
        if runs and not requested:
            # Otherwise the first comes after an interval. A refused request is no error: that one comes, too.
            requested = True
            with contextlib.suppress(LocalStackError):
                rest.trigger_checkpoint(job_id)
        if time.monotonic() > next_s:
            next_s = time.monotonic() + _WAITING_EVERY_S
            waits = "its first checkpoint" if runs else f"its steps: {tasks.count('RUNNING')} of {len(tasks)} run"
            say(f"job {job_id} is {job['state']}, waiting for {waits}", job_id=job_id)
        time.sleep(_STARTING_EVERY_S)


def _refusal(settings: Settings, message: str) -> str:
    """Why Flink refused the job, in terms of this program's options where possible."""
    cause, path = root_cause(message), settings.savepoint_path
    if "Cannot find checkpoint or savepoint" in cause or "Cannot find meta data file" in cause:
        return f"--savepoint_path is {path!r}, where the cluster finds no savepoint or checkpoint"
    if "Cannot map checkpoint/savepoint state for operator" in message:
        return (
            f"--savepoint_path is {path!r}, which has state that belongs to no step of this pipeline: it was taken "
            "with a --control_topic or --rules_topic that is missing here, or a release without that step is started. "
            "Give the options that it was taken with, or --allow_non_restored_state to drop that part"
        )
    return cause
