"""The pods of infra/kubernetes in the image: containers as rendered, with addresses of their own and a real Kafka.

What the operator and Kubernetes make of the manifests is made here: Flink's file, arguments, variables, volumes,
secrets, limits of memory, names. Replaced is what they alone have: no high availability, as it keeps its leader in
config maps, so the JobManager has a name, as the operator gives it then; S3 is moto, with an endpoint and a key.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from confluent_kafka import Producer

from pipeline.launch.options.resolving import Sources
from runners.flink.rest import FlinkRest
from tests import moto
from tests.faults.s3 import CREDENTIALS
from tests.flink_cluster import wait_for_checkpoint
from tests.image.containers import Containers, containers, inspected, podman
from tests.image.lan import HOST, address, lan
from tests.image.long.test_containers import FIGURES, wait_for_task_managers
from tests.integration.jobs import reading
from tests.integration.user_api import serve_users
from tests.kafka_broker import KafkaBroker
from tests.kubernetes import operator
from tests.kubernetes.manifests import Document, render, the
from tests.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]

PODS = {name: address(number) for number, name in enumerate(("jobmanager", "taskmanager", "launch", "page"), 2)}
FLINK = ("jobmanager", "taskmanager")
TOKEN = "0123456789abcdef" * 4
S3 = f"http://{HOST}:9000"
# Of this test, over what the operator writes.
SETTINGS = {
    "s3.endpoint": S3,
    "s3.path.style.access": "true",
    # Kubernetes would start a JobManager again whose ten seconds were over on a busy machine.
    "pekko.startup-timeout": "5 min",
}
USERS = {f"u{n}": {"profile": {"country": "US" if n % 2 else "FR"}, "visit": {}, "history": []} for n in range(40)}


class Broker(KafkaBroker):
    """A broker with a listener for pods, on the port that the overlays name."""

    def _properties(self) -> dict[str, Any]:
        properties = super()._properties()
        for key in ("listeners", "advertised.listeners"):
            properties[key] += f",PODS://{HOST}:9092"
        properties["listener.security.protocol.map"] += ",PODS:PLAINTEXT"
        return properties


@dataclass
class Pods:
    """Starts the containers of an overlay's pods."""

    run: Containers
    documents: list[Document]
    networks: Mapping[str, str]
    folder: Path
    secrets: Mapping[str, str]

    def start(self, name: str, *, wait: bool = False) -> str:
        """The container's name, or what it printed if it is waited for."""
        pod, container = operator.containers(self.documents)[name]
        security = pod["securityContext"]
        options = [self.networks[name], f"--hostname={name}", "--image-volume=ignore"]
        options += [f"--user={security['runAsUser']}:{security['runAsGroup']}"]
        options += [f"--memory={container['resources']['limits']['memory']}"]
        options += [f"--add-host={host}:{place}" for host, place in self.names(name).items()]
        options += [f"--entrypoint={command}" for command in container.get("command", ())]
        for mount in container["volumeMounts"]:
            (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
            options += self.volume(name, volume, mount["mountPath"])
        variables = self.environment(container)
        if name in FLINK:
            files = operator.conf_files({**operator.settings(self.documents), **SETTINGS})
            options.append(f"--volume={self.files(f'{name}-conf', files)}:{operator.CONF_DIR}:ro")
            variables |= {"FLINK_CONF_DIR": operator.CONF_DIR, "_POD_IP_ADDRESS": PODS[name], **CREDENTIALS}
        return self.run.start(*container["args"], options=options, variables=variables, wait=wait)

    def names(self, name: str) -> dict[str, str]:
        """The services' names, those of servers that the overlay has, and the pod's own."""
        flink = the(self.documents, "FlinkDeployment")["metadata"]
        services = (f"{flink['name']}.{flink['namespace']}", f"{flink['name']}-rest")
        servers = ("broker-1.example.com", "broker-2.example.com", "users.internal.example.com")
        return {**dict.fromkeys(services, PODS["jobmanager"]), **dict.fromkeys(servers, HOST), name: PODS[name]}

    def volume(self, name: str, volume: Document, path: str) -> list[str]:
        if "configMap" in volume:
            data = the(self.documents, "ConfigMap", volume["configMap"]["name"])["data"]
            return [f"--volume={self.files(volume['configMap']['name'], data)}:{path}:ro"]
        if "sizeLimit" in volume["emptyDir"]:
            return [f"--tmpfs={path}:rw,exec,mode=1777,size={volume['emptyDir']['sizeLimit'].removesuffix('i')}"]
        folder = self.folder / f"{name}-{volume['name']}"
        folder.mkdir()
        folder.chmod(0o777)
        return [f"--volume={folder}:{path}"]

    def files(self, name: str, contents: Mapping[str, str]) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file, text in contents.items():
            (folder / file).write_text(text)
        return folder

    def topics(self) -> Iterable[str]:
        """The topics that the launch needs with the overlay's options."""
        files = self.files("event-trigger", the(self.documents, "ConfigMap")["data"])
        return Sources(file=files / "event-trigger.yaml").resolve().settings().needed_topics(True).values()

    def environment(self, container: Document) -> dict[str, str]:
        """The variables of a container. One whose secret is not there is left out if it is optional."""
        found = {}
        for variable in container.get("env", ()):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                if reference["key"] in self.secrets or not reference.get("optional"):
                    found[variable["name"]] = self.secrets[reference["key"]]
        return found


@contextmanager
def pods_of(overlay: str, folder: Path) -> Iterator[Pods]:
    folder.chmod(0o755)
    documents = render(overlay)
    del the(documents, "FlinkDeployment")["spec"]["flinkConfiguration"]["high-availability.type"]
    with lan(len(PODS)) as networks, containers() as run:
        yield Pods(run, documents, dict(zip(PODS, networks, strict=True)), folder, {"ui-token": TOKEN})


@contextmanager
def s3(bucket: str) -> Iterator[None]:
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", S3.rpartition(":")[2]]
    environment = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(moto.packages())}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: status(lambda: requests.put(f"{S3}/{bucket}", timeout=10)) == 200, "S3 answers", 600)
        yield
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("overlay", ["medium", "large"])
def test_a_taskmanager_registers_once_with_the_slots_and_memory_that_are_rendered(overlay: str, tmp_path: Path) -> None:
    with pods_of(overlay, tmp_path) as pods:
        registered(pods)


def test_each_pod_of_the_small_overlay_runs_as_rendered(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        pods_of("small", tmp_path) as pods,
        s3("event-trigger-small"),
        serve_users(USERS, address=(HOST, 80)),
        Broker() as kafka,
    ):
        for topic in pods.topics():
            kafka.create_topic(topic, 4)
        jobmanager, task_manager = registered(pods)
        rest = FlinkRest(f"http://{PODS['jobmanager']}:8081")
        pods.start("launch", wait=True)
        page = pods.start("page")
        (job,) = rest.jobs()
        with reading(kafka, "event-actions") as actions:
            produce(kafka)
            expected = sum(user["profile"]["country"] == "US" for user in USERS.values())
            actions.until(expected, 600)
            assert len(actions.settle()) == expected
        checkpoint = wait_for_checkpoint(rest, job["jid"], 1, 600)["external_path"]
        assert checkpoint.startswith("s3://event-trigger-small/checkpoints/")
        # As `kubectl port-forward` reaches it: the page takes no other names unless --allowed_host gives them.
        get = partial(requests.get, headers={"Host": "127.0.0.1:8085"}, timeout=60, allow_redirects=False)
        url = f"http://{PODS['page']}:8085"
        eventually(lambda: status(lambda: get(f"{url}/health")) == 200, "the page finds the job healthy", 600)
        assert get(url).status_code == 303, "what the page shows needs its token"
        assert requests.get(url, timeout=60).status_code == 400
        FIGURES.record(
            pods_of_Kubernetes=f"launched, {expected} actions {time.monotonic() - started:.0f} s after their start"
        )
        ends = {
            role: stopped(name)
            for role, name in (("page", page), ("TaskManager", task_manager), ("JobManager", jobmanager))
        }
    FIGURES.record(SIGTERM=", ".join(f"{role}: {end}" for role, end in ends.items()))


def registered(pods: Pods) -> tuple[str, str]:
    """Start JobManager and TaskManager; their containers' names when the one has the other, as it is rendered."""
    jobmanager, task_manager = (pods.start(name) for name in FLINK)
    rest = FlinkRest(f"http://{PODS['jobmanager']}:8081")
    wait_for_task_managers(rest, 1)
    # What the operator's startup probe asks of a JobManager.
    assert requests.get(f"http://{PODS['jobmanager']}:8081/config", timeout=60).ok
    (found,) = rest.task_managers()
    spec = the(pods.documents, "FlinkDeployment")["spec"]
    assert found["slotsNumber"] == int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert found["memoryConfiguration"]["totalProcessMemory"] == mebibytes(spec["taskManager"]["resource"]["memory"])
    assert found["memoryConfiguration"]["managedMemory"] == mebibytes(
        spec["flinkConfiguration"]["taskmanager.memory.managed.size"]
    )
    # A busy JobManager answers late, and the TaskManager asks again: under the same name, as no second one started.
    names = re.findall(r"Registering TaskManager with ResourceID (\S+)", podman("logs", jobmanager).stdout)
    assert len(set(names)) == 1
    return jobmanager, task_manager


def mebibytes(size: str) -> int:
    return int(size.removesuffix("m")) << 20


def produce(kafka: KafkaBroker) -> None:
    """A page view of each user; those in the US fire."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for user in USERS:
        event = {"event_id": user, "user_id": user, "event_name": "page_view", "timestamp": int(time.time() * 1000)}
        producer.produce("user-tracking-events", orjson.dumps(event), user.encode())
    assert producer.flush(60) == 0


def status(call: Callable[[], requests.Response]) -> int:
    """The status of an answer; 0 while there is none."""
    with contextlib.suppress(requests.RequestException):
        return call().status_code
    return 0


def stopped(name: str) -> str:
    """Stop a container as Kubernetes does: the exit code and the seconds. It must not have to be killed."""
    started = time.monotonic()
    assert podman("stop", "--time", "60", name).returncode == 0
    code = inspected("inspect", name)["State"]["ExitCode"]
    assert code != 137, f"{name} was killed: {podman('logs', name).stdout}"
    return f"{code} after {time.monotonic() - started:.0f} s"
