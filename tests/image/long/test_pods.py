"""Every pod of the overlay ``small``, as a container of the image: its arguments, files, mounts, user and memory.

The pods are those of ``tests.kubernetes.operator``. What only a cluster has is replaced: moto holds the bucket,
ZooKeeper says who leads instead of config maps, names of services are entries of /etc/hosts, and all pods share this
machine's network, so that their ports have to be free and a TaskManager's metrics get the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from runners.flink.errors import LocalStackError
from runners.flink.local.processes import accepts_connections
from runners.flink.rest import FlinkRest
from tests.builders import oracle_of, rule_documents, user_api_of
from tests.faults.s3 import CREDENTIALS, LocalS3
from tests.faults.zookeeper import LocalZooKeeper
from tests.flink_cluster import running_since, wait_for_checkpoint, wait_for_recovery
from tests.image.containers import Containers, containers, podman
from tests.image.long.test_containers import wait_for_task_managers
from tests.integration.jobs import PATIENT, Topics, reading
from tests.integration.test_main_job import RECORDS, USERS, check
from tests.integration.user_api import serve_users
from tests.kafka_broker import KafkaBroker
from tests.kubernetes import operator
from tests.kubernetes.manifests import Document, render, the
from tests.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]

PORTS = (6121, 6122, 6123, 6124, 8081, 8085, 9249, 9250)
SECRETS = {"ui-token": "0123456789abcdef0123456789abcdef"}


@dataclass
class Pods:
    """Starts pods of rendered documents, whose config maps and Flink's files are in a folder."""

    documents: list[Document]
    folder: Path
    run: Containers

    def start(self, name: str, *arguments: str, wait: bool = False) -> str:
        """Start a pod, with other arguments if some are given; the container's name, or what it printed."""
        pod, container = operator.containers(self.documents)[name]
        options = ["--network=host", f"--user={pod['securityContext']['runAsUser']}"]
        for host in ("event-trigger-rest", f"event-trigger.{self.namespace}", f"event-trigger-rest.{self.namespace}"):
            options.append(f"--add-host={host}:127.0.0.1")
        memory = container["resources"]["limits"]["memory"]
        options += [f"--memory={memory.removesuffix('i')}", *self._mounts(pod, container)]
        given = arguments or [word.replace("$(_POD_IP_ADDRESS)", "127.0.0.1") for word in container["args"]]
        return self.run.start(*given, options=options, variables=self._variables(container), wait=wait)

    @property
    def namespace(self) -> str:
        return the(self.documents, "FlinkDeployment")["metadata"]["namespace"]

    def _mounts(self, pod: Document, container: Document) -> list[str]:
        volumes, found = {volume["name"]: volume for volume in pod["volumes"]}, []
        if container["name"] == "flink-main-container":
            found.append(f"--volume={self.folder / 'conf'}:{operator.CONF_DIR}:ro")
        for mount in container["volumeMounts"]:
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "configMap" in volume:
                found.append(f"--volume={self.folder / 'config'}:{path}:ro")
            elif "sizeLimit" in volume["emptyDir"]:
                found.append(f"--tmpfs={path}:size={volume['emptyDir']['sizeLimit'].removesuffix('i')},mode=1777")
            else:
                found.append(f"--volume={path}")
        return found

    @staticmethod
    def _variables(container: Document) -> dict[str, str]:
        """Those of the pod, and the credentials that its service account would give it."""
        found = dict(CREDENTIALS)
        for variable in container.get("env", ()):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret is None:
                found[variable["name"]] = variable["value"]
            elif secret["key"] in SECRETS:
                found[variable["name"]] = SECRETS[secret["key"]]
            else:
                assert secret["optional"]
        return found


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Files as Kubernetes mounts them: everybody reads them."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def adapted(documents: list[Document], **options: Any) -> dict[str, str]:
    """The files of the config map, with these options and the rules of the oracle: what its user edits."""
    files = dict(the(documents, "ConfigMap")["data"])
    files["event-trigger.yaml"] = yaml.safe_dump({**yaml.safe_load(files["event-trigger.yaml"]), **options})
    files["rules.yaml"] = yaml.safe_dump_all(rule_documents("kafka"))
    return files


def flag_values(*flags: str) -> dict[str, str]:
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def test_a_job_of_the_pods_outlives_a_taskmanager_and_a_jobmanager(tmp_path: Path) -> None:
    taken = [port for port in PORTS if accepts_connections(port)]
    assert taken == [], "another program has ports of the pods"
    tmp_path.chmod(0o755)
    documents, oracle = render("small"), oracle_of(RECORDS, user_api_of(USERS))
    with (
        KafkaBroker() as kafka,
        LocalS3("event-trigger-small") as s3,
        LocalZooKeeper() as zookeeper,
        serve_users(user_api_of(USERS)) as api,
        containers() as run,
    ):
        topics = Topics(kafka)
        write(
            tmp_path / "config",
            adapted(
                documents,
                user_api_url=api,
                control_topic=topics.control,
                **flag_values(*topics.options(), *PATIENT),
            ),
        )
        settings = operator.settings(documents) | zookeeper.settings("event-trigger")
        settings |= {"s3.endpoint": s3.endpoint, "s3.path.style.access": "true"}
        settings["metrics.reporter.prom.port"] += "-9250"
        write(tmp_path / "conf", operator.conf_files(settings))

        pods = Pods(documents, tmp_path, run)
        pods.start("launch", "event-trigger", "topics", "create", wait=True)
        job_manager, task_manager = pods.start("jobmanager"), pods.start("taskmanager")
        rest = FlinkRest("http://127.0.0.1:8081")
        wait_for_task_managers(rest, 1)
        (registered,) = rest.task_managers()
        assert registered["slotsNumber"] == 4
        with (
            reading(kafka, topics.actions) as actions,
            reading(kafka, topics.dead_letters) as dead_letters,
            reading(kafka, topics.inspections) as inspections,
        ):
            pods.start("launch", wait=True)
            (job_id,) = (str(job["jid"]) for job in rest.jobs())
            assert rest.job(job_id)["state"] == "RUNNING"
            page = pods.start("page")
            topics.produce(RECORDS[:10_000])
            wait_for_checkpoint(rest, job_id, rest.checkpoints(job_id)["counts"]["completed"] + 1, 600)

            since = running_since(rest, job_id)
            assert podman("kill", "--signal", "KILL", task_manager).returncode == 0
            pods.start("taskmanager")
            wait_for_recovery(rest, job_id, since, 900)
            topics.produce(RECORDS[10_000:15_000])

            since = running_since(rest, job_id)
            assert podman("kill", "--signal", "KILL", job_manager).returncode == 0
            pods.start("jobmanager")

            def led_again() -> bool:
                with contextlib.suppress(LocalStackError):
                    return running_since(rest, job_id) > since
                return False

            eventually(led_again, "the new JobManager has the job", 900)
            wait_for_recovery(rest, job_id, since, 900)
            topics.produce(RECORDS[15_000:])
            check(oracle, topics, actions, dead_letters, inspections)

            assert s3.keys("ha/")
            for url, found in (
                ("http://127.0.0.1:8085/", "<title>"),
                ("http://127.0.0.1:9249/metrics", "flink_jobmanager_"),
            ):
                assert found in requests.get(url, timeout=60).text, podman("logs", page).stdout
