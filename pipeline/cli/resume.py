"""``python -m pipeline resume``: starts the pipeline from the newest state that an ended job has left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.cli.command_line import RaisingParser, rest_client, steer
from pipeline.console import say, warn
from pipeline.errors import OptionError
from pipeline.job.checkpoint_storage import retained_checkpoints
from pipeline.job.jobs import NoJobError, ended_jobs
from pipeline.job.saved_state import CHECKPOINT, SavedState, newest_state_of_any
from pipeline.launch import run
from pipeline.launch.options import FLINK_RUNNER, Settings, parse
from runners.flink.rest import FlinkRest

_DESCRIPTION: Final = """\
Starts the pipeline from the newest savepoint or checkpoint that the last job of --job_name has left on the cluster, or
from --savepoint_path. All other options are those of the launch: the same as at the first start, and what is to change.
user_shards and max_parallelism belong to the state and cannot; everything else may, parallelism and rules among it.
0: as `python -m pipeline`; 1: there is nothing to start from, or Flink does not answer; 2: an option cannot be used."""


def main(argv: Sequence[str]) -> int:
    """Find the state and launch; the exit code."""
    return steer(_resume, argv)


def _resume(argv: Sequence[str]) -> int:
    parser = RaisingParser(
        "resume", "--flink_master=HOST:PORT [--from_job=NAME_OR_ID] OPTIONS OF THE LAUNCH", _DESCRIPTION
    )
    parser.add_argument(
        "--from_job", metavar="NAME_OR_ID", help="job whose newest state it is (default: the last of --job_name)"
    )
    arguments, options = parser.parse_known_args(argv)
    if not any(option.partition("=")[0] == "--runner" for option in options):
        options = [f"--runner={FLINK_RUNNER}", *options]
    settings = parse(options, parser.prog)
    if settings.start_without_state:
        raise OptionError("--start_without_state is of no use with resume, which starts from state")
    rest = rest_client(settings.flink_master)
    if settings.savepoint_path is not None:
        if arguments.from_job is not None:
            raise OptionError("--savepoint_path and --from_job are both given, allowed: one of them")
        return run.launch(options)
    state = _state_to_resume(rest, arguments.from_job, settings)
    say(f"going on from the {state}")
    return run.launch([*options, f"--savepoint_path={state.path}"])


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
