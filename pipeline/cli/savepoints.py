"""``event-trigger savepoints``: which there are, which of them a job could continue from, and deleting old ones."""

from __future__ import annotations

import time
from typing import Annotated, Final

from cyclopts import Parameter

from pipeline.cli.parameters import EVENTS_TOPIC, Brokers, Cluster, Count, Topic
from pipeline.console import out, out_json, say
from pipeline.errors import OptionError
from pipeline.job.saved_state import SavedState, places_in_use, savepoints
from pipeline.kafka.retention import Kept, kept_since
from pipeline.timestamps import shown_time
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest
from transforms.domain.base.durations import Duration

Folder = Annotated[str | None, Parameter(metavar="URL")]
_UNKNOWN: Final = "unknown (give --bootstrap_servers)"


def list_all(
    *,
    cluster: Cluster = Cluster(),
    directory: Folder = None,
    brokers: Brokers = Brokers(),
    events_topic: Topic = EVENTS_TOPIC,
    json: bool = False,
) -> None:
    """List the savepoints that the cluster's jobs remember and those in its folder, the newest first.

    Of each: when it was taken, how long ago, size, job, path, and whether a job that starts from it would miss events:
    Kafka deletes old records, those of after the savepoint, too. Without --bootstrap_servers that is unknown.

    0: shown; 1: Flink, S3 or Kafka does not answer; 2: an option cannot be used.

    Args:
        directory: where from; default: the cluster's state.savepoints.dir. A file:// folder as this machine sees it.
        events_topic: as the pipeline's.
        json: print JSON.
    """
    with cluster.client() as rest:
        found, folder = _found(rest, directory)
    config = None if brokers.bootstrap_servers is None else brokers.config()
    times = [state.at_ms for state in found]
    kept = [None] * len(found) if config is None else kept_since(config, events_topic, times)
    if json:
        out_json([_document(state, each) for state, each in zip(found, kept, strict=True)])
        return
    for state, each in zip(found, kept, strict=True):
        out(f"{_line(state)}  restorable: {_UNKNOWN if each is None else each}")
    say(f"{len(found)} savepoints; of {folder or 'no folder'} what this machine sees of it")


def prune(
    *,
    older_than: str,
    keep: Count = 3,
    cluster: Cluster = Cluster(),
    directory: Folder = None,
    yes: bool = False,
) -> None:
    """Delete savepoints older than --older_than, but never the newest --keep, nor what a living job started from.

    The cluster deletes them, with its own access to the folder. Without --yes it only says which would go.

    0: done; 1: Flink or S3 does not answer, or refuses; 2: an option cannot be used, or --yes is missing.

    Args:
        older_than: age, for example 30d.
        keep: how many of the newest stay, however old.
        directory: where from; default: the cluster's state.savepoints.dir.
        yes: do it.
    """
    try:
        age = Duration.parse(older_than)
    except ValueError as error:
        raise OptionError(f"--older_than is {older_than!r}, allowed: {error}") from None
    if not 1 <= keep <= 1000:
        raise OptionError(f"--keep is {keep}, allowed: 1 to 1000")
    with cluster.client() as rest:
        found, _ = _found(rest, directory)
        in_use = places_in_use(rest)
        old = [state for state in found[keep:] if state.at_ms < time.time() * 1000 - age.ms]
        going = [state for state in old if state.place not in in_use]
        if len(going) < len(old):
            say(f"{len(old) - len(going)} stay: a job that is not over started from them")
        for state in going:
            out(_line(state))
        if not going:
            say(f"nothing to delete: {len(found)} savepoints, the newest {keep} stay")
            return
        if not yes:
            raise OptionError(f"--yes is missing: it would delete these {len(going)} of {len(found)} savepoints")
        for number, state in enumerate(going):
            try:
                rest.dispose_savepoint(state.path)
            except LocalStackError as error:
                raise LocalStackError(
                    f"{number} of {len(going)} savepoints deleted, then {state.path}: {error}"
                ) from error
    say(f"{len(going)} savepoints deleted, {len(found) - len(going)} are left")


def _found(rest: FlinkRest, directory: str | None) -> tuple[list[SavedState], str | None]:
    """The savepoints, the newest first, and the folder that was looked into."""
    configuration = rest.configuration()
    folder = directory or configuration.get("state.savepoints.dir")
    return savepoints(rest, folder, configuration.get("s3.endpoint")), folder


def _age_s(state: SavedState) -> float:
    return max(0.0, time.time() - state.at_ms / 1000)


def _line(state: SavedState) -> str:
    size = "" if state.size_bytes is None else f"{state.size_bytes / 1e6:,.1f} MB"
    days = f"{_age_s(state) / 86400:,.1f} d ago"
    return f"{shown_time(state.at_ms)}  {days:>13}  {size:>12}  {state.job_id:<32}  {state.path}"


def _document(state: SavedState, kept: Kept | None) -> dict[str, object]:
    return {
        "path": state.path,
        "taken": state.at_ms,
        "age_seconds": round(_age_s(state)),
        "bytes": state.size_bytes,
        "job": state.job_id,
        "restorable": None if kept is None else not kept.partitions,
        "partitions_deleted": None if kept is None else list(kept.partitions),
    }
