"""``event-trigger resume``: starts the pipeline from the newest state that an ended job has left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.parameters import Launch, going_on_without_us, rest_client
from pipeline.console import say, warn
from pipeline.errors import OptionError
from pipeline.job.checkpoint_storage import retained_checkpoints
from pipeline.job.jobs import NoJobError, ended_jobs
from pipeline.job.saved_state import CHECKPOINT, SavedState, newest_state_of_any
from pipeline.launch import run
from pipeline.launch.options import FLINK_RUNNER, Settings, parse
from runners.flink.rest import FlinkRest


def resume(
    *, from_job: Annotated[str | None, Parameter(metavar="NAME_OR_ID")] = None, options: Launch = Launch()
) -> int:
    """Start the pipeline from the newest state that the last job of --job_name has left, or from --savepoint_path.

    All other options are those of the launch (`event-trigger run --help`): the same as at the first start, and what is
    to change. user_shards and max_parallelism belong to the state and cannot; everything else may, parallelism and
    rules among it.

    0: as `event-trigger run`; 1: there is nothing to start from, or Flink does not answer; 2: an option cannot be used.

    Args:
        from_job: job whose newest state it is; default: the last of --job_name.
    """
    return launch_from_state(options.flags, from_job)


def launch_from_state(flags: Sequence[str], from_job: str | None = None) -> int:
    """Find the state of the job that the flags describe, and launch from it; returns the exit code.

    Raises:
        NoJobError: there is no state.
        OptionError: an option cannot be used.
    """
    if not any(flag.partition("=")[0] == "--runner" for flag in flags):
        flags = [f"--runner={FLINK_RUNNER}", *flags]
    settings = parse(flags)
    if settings.start_without_state:
        raise OptionError("--start_without_state is of no use with resume, which starts from state")
    rest = rest_client(settings.flink_master)
    if settings.savepoint_path is not None:
        if from_job is not None:
            raise OptionError("--savepoint_path and --from_job are both given, allowed: one of them")
        return run.launch(flags)
    with going_on_without_us():
        state = _state_to_resume(rest, from_job, settings)
        say(f"going on from the {state}")
        return run.launch([*flags, f"--savepoint_path={state.path}"])


def _state_to_resume(rest: FlinkRest, from_job: str | None, settings: Settings) -> SavedState:
    """The newest state that the cluster remembers of the job, otherwise the newest in its checkpoint folder.

    Raises:
        NoJobError: there is none.
        OptionError: the job still runs.
    """
    id_or_name = from_job or settings.job_name
    jobs = ended_jobs(rest, id_or_name)
    state = newest_state_of_any(rest, jobs)
    if state is not None:
        return state
    configuration = rest.configuration()
    folder = configuration.get("state.checkpoints.dir", "")
    retained = retained_checkpoints(folder, configuration.get("s3.endpoint"))
    states = [SavedState(CHECKPOINT, *checkpoint) for checkpoint in retained]
    newest_first = sorted(states, key=lambda state: state.at_ms, reverse=True)
    of_job = next((state for state in newest_first if state.job_id == id_or_name), None)
    if of_job is not None:
        may_be_older = f"what lies in {folder} may not be all it has left"
        warn(f"the cluster at {rest.url} has forgotten job {id_or_name}; {may_be_older}")
        return of_job
    problem = f"job {id_or_name!r} has left no state" if jobs else f"no job {id_or_name!r} is remembered"
    choices = "; ".join(map(str, newest_first[:5]))
    raise NoJobError(
        f"{problem} at {rest.url}. Give --savepoint_path=PATH, or --from_job=ID of one whose checkpoints lie in "
        f"{folder or 'its checkpoint folder'}: {choices or 'none are seen there from here'}"
    )
