"""Findings about a Flink cluster and this machine's Beam, which both ``doctor`` and a launch need."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.kafka.security import AWS_MSK_IAM, MSK_IAM_JAR
from runners.flink.errors import LocalStackError
from runners.flink.overrides import BEAM_VERSION
from runners.flink.rest import FlinkRest

OK, WARN, FAIL, SKIP = "ok", "warn", "FAIL", "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: ``outcome`` is a constant of this module, ``advice`` says what to do about it."""

    check: str
    outcome: str
    message: str
    advice: str = ""


@dataclass(slots=True)
class Cluster:
    """A Flink cluster as its REST endpoint describes it. ``machines`` are the hosts that TaskManagers run on."""

    url: str
    version: str
    slots_free: int
    task_managers: int
    machines: int
    configuration: Mapping[str, str]
    class_path: list[str]

    @classmethod
    def read(cls, rest: FlinkRest) -> Cluster:
        """Read the description from the REST endpoint.

        Raises:
            LocalStackError: nothing answers, or something that is not Flink.
        """
        overview = rest.overview()
        try:
            # pekko.tcp://flink@HOST:PORT/user/rpc/taskmanager_0
            hosts = {urlsplit(str(task_manager["path"])).hostname for task_manager in rest.task_managers()}
            return cls(
                rest.url,
                str(overview["flink-version"]),
                int(overview["slots-available"]),
                int(overview["taskmanagers"]),
                len(hosts),
                rest.configuration(),
                rest.class_path(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LocalStackError(f"{rest.url} answers, but not as Flink does: {error!r}") from None


def check_jars(cluster: Cluster) -> Finding:
    """Check that our connectors and the runner of the installed Beam are in the cluster's class path."""
    # Every node has its own folder names, so only file names are compared.
    names = [entry.rpartition("/")[2] for entry in cluster.class_path]
    advice = "copy the jars that `python -m runners.flink.artifacts` names into lib/ of every node and restart them"
    if not any(name.startswith("event-trigger-connectors") for name in names):
        return Finding("Connectors", FAIL, "not in the JobManager's class path", advice)
    runners = [name for name in names if name.startswith("beam-runners-flink-")]
    if not runners or not all(name.endswith(f"-{BEAM_VERSION}.jar") for name in runners):
        message = (
            f"the JobManager's class path has {', '.join(runners) or 'no runner of Beam'}, allowed: Beam {BEAM_VERSION}"
        )
        return Finding("Connectors", FAIL, message, f"{advice}, without those of another release")
    return Finding("Connectors", OK, "in the JobManager's class path")


def check_ports(cluster: Cluster) -> Finding:
    """Check that Beam's servers for workers listen on the loopback address of each TaskManager only."""
    names = [entry.rpartition("/")[2] for entry in cluster.class_path]
    ours = next((place for place, name in enumerate(names) if name == "beam-overrides.jar"), len(names))
    beams = next((place for place, name in enumerate(names) if name.startswith("beam-sdks-java-core-")), len(names))
    if ours < beams:
        return Finding("Workers' ports", OK, "on the loopback address")
    message = "Beam's servers for workers listen on every interface, and ask nobody who they are"
    advice = "put beam-overrides.jar of `make connectors` before beam-sdks-java-core in the class path of every node"
    return Finding("Workers' ports", WARN, message, f"{advice}, or close all but the cluster's own ports to others")


def check_msk_iam(cluster: Cluster) -> Finding:
    """Check that Flink's Kafka clients can log in to Amazon MSK by IAM."""
    if any(entry.rpartition("/")[2].startswith(MSK_IAM_JAR) for entry in cluster.class_path):
        return Finding("MSK IAM", OK, f"{MSK_IAM_JAR} is in the JobManager's class path")
    message = f"no {MSK_IAM_JAR} in the JobManager's class path, which --kafka_sasl_mechanism={AWS_MSK_IAM} needs"
    return Finding("MSK IAM", FAIL, message, "copy its jar into lib/ of every node (make release ARGS=--msk_iam)")


def check_checkpoint_dir(cluster: Cluster, is_shared: bool) -> Finding:
    """Check that checkpoints outlive the machine that wrote them.

    ``is_shared``: the operator says that all machines share the cluster's ``file://`` checkpoint folder.
    """
    folder = cluster.configuration.get("state.checkpoints.dir")
    if folder is None:
        message = "state.checkpoints.dir is not set: checkpoints are in the JobManager's memory, and gone with it"
        return Finding("Checkpoints", FAIL, message, "set it in the cluster's configuration")
    if urlsplit(folder).scheme in ("", "file") and cluster.machines > 1 and not is_shared:
        message = f"state.checkpoints.dir is {folder}, and TaskManagers are on {cluster.machines} machines: a job that "
        message += "restarts on another finds no state"
        advice = "set it to a folder in S3, or give --checkpoint_dir_is_shared if all machines share this one"
        return Finding("Checkpoints", FAIL, message, advice)
    return Finding("Checkpoints", OK, folder)


def check_beam() -> Finding:
    """Check that the installed Beam is of the same release as the Flink runner."""
    version = importlib.metadata.version("apache-beam")
    if version == BEAM_VERSION:
        return Finding("Beam", OK, f"{version}, as the runner")
    return Finding("Beam", FAIL, f"{version} is installed, the runner is {BEAM_VERSION}", "install what the lock names")
