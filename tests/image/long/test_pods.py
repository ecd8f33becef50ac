"""The pods of infra/kubernetes in the image: each container as rendered, with addresses of their own and real Kafka.

What Kubernetes does for them is done here: volumes, variables, secrets, limits of memory, names, the API of config maps
that high availability uses, with the rights of the rendered Role and no others. S3 is moto.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from runners.flink.errors import LocalStackError
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
from tests.kubernetes import api_server, operator
from tests.kubernetes.manifests import Document, render, the
from tests.secure_kafka import Authority

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]

TOKEN = "0123456789abcdef" * 4
PODS = {name: address(number) for number, name in enumerate(("jobmanager", "taskmanager", "launch", "page"), 2)}
S3 = f"http://{HOST}:9000"
IN_POD = "/var/run/secrets/kubernetes.io/serviceaccount"


class Broker(KafkaBroker):
    """A broker with a listener for pods, on the port that the overlay names."""

    def _properties(self) -> dict[str, Any]:
        properties = super()._properties()
        for key in ("listeners", "advertised.listeners"):
            properties[key] += f",PODS://{HOST}:9092"
        properties["listener.security.protocol.map"] += ",PODS:PLAINTEXT"
        return properties


@contextlib.contextmanager
def s3(bucket: str) -> Iterator[None]:
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", S3.rpartition(":")[2]]
    environment = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(moto.packages())}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: requests.put(f"{S3}/{bucket}", timeout=10).ok, "S3 answers")
        yield
    finally:
        server.kill()
        server.wait()


def until(condition: Callable[[], bool], what: str, deadline_s: float = 600) -> None:
    give_up = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(requests.RequestException, LocalStackError):
            if condition():
                return
        assert time.monotonic() < give_up, f"not after {deadline_s:g} s: {what}"
        time.sleep(0.5)


@dataclass
class Pods:
    """Starts the containers of rendered pods."""

    run: Containers
    documents: list[Document]
    networks: Mapping[str, str]
    folder: Path
    secrets: Mapping[str, str]

    def start(self, name: str, *, wait: bool = False) -> str:
        pod, container = operator.containers(self.documents)[name]
        security = pod["securityContext"]
        options = [
            self.networks[name],
            f"--hostname={name}",
            f"--user={security['runAsUser']}:{security['runAsGroup']}",
        ]
        options += ["--image-volume=ignore", f"--memory={container['resources']['limits']['memory']}"]
        options += [f"--add-host={host}:{place}" for host, place in self.names(name).items()]
        for mount in container.get("volumeMounts", ()):
            (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
            options.append(f"--volume={self.volume(name, volume)}:{mount['mountPath']}")
        if name in ("jobmanager", "taskmanager"):
            files = operator.conf_files({**operator.settings(self.documents), **OF_TESTS})
            options.append(f"--volume={self.files(f'{name}-conf', files)}:{operator.CONF_DIR}:ro")
        if pod["automountServiceAccountToken"]:
            options.append(f"--volume={self.folder / 'account'}:{IN_POD}:ro")
        variables = {
            "KUBERNETES_SERVICE_HOST": HOST,
            "KUBERNETES_SERVICE_PORT": "6443",
            "_POD_IP_ADDRESS": PODS[name],
            **self.environment(container),
        }
        arguments = [word.replace("$(_POD_IP_ADDRESS)", PODS[name]) for word in container["args"]]
        return self.run.start(*arguments, options=options, variables=variables, wait=wait)

    def names(self, name: str) -> dict[str, str]:
        """Names of services, of the overlay's servers, and the pod's own."""
        namespace = the(self.documents, "FlinkDeployment")["metadata"]["namespace"]
        services = {"event-trigger-rest": "jobmanager", f"event-trigger-rest.{namespace}": "jobmanager"}
        servers = ("broker-1.example.com", "broker-2.example.com", "users.internal.example.com")
        places = {service: PODS[pod] for service, pod in services.items()}
        return {**places, **dict.fromkeys(servers, HOST), name: PODS[name]}

    def volume(self, name: str, volume: Document) -> str:
        if "configMap" in volume:
            data = the(self.documents, "ConfigMap", volume["configMap"]["name"])["data"]
            return str(self.files(f"{name}-{volume['name']}", data))
        folder = self.folder / f"{name}-{volume['name']}-{len(self.run.names)}"
        folder.mkdir()
        folder.chmod(0o777)
        return str(folder)

    def files(self, name: str, contents: Mapping[str, str]) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file, text in contents.items():
            (folder / file).write_text(text)
        return folder

    def environment(self, container: Document) -> dict[str, str]:
        """The variables of a container. One whose secret is not there is left out if it is optional."""
        found = {}
        for variable in container.get("env", ()):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["name"] == "event-trigger"
                if reference["key"] in self.secrets or not reference.get("optional"):
                    found[variable["name"]] = self.secrets[reference["key"]]
        return found


OF_TESTS = {
    "s3.endpoint": S3,
    "s3.path.style.access": "true",
    "s3.access-key": CREDENTIALS["AWS_ACCESS_KEY_ID"],
    "s3.secret-key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    # Kubernetes would start a JobManager again whose ten seconds were over on a busy machine.
    "pekko.startup-timeout": "5 min",
}


def test_each_pod_runs_as_rendered_and_a_new_jobmanager_takes_the_job_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    documents = render("small")
    options = the(documents, "ConfigMap")["data"]["event-trigger.yaml"]
    namespace = the(documents, "FlinkDeployment")["metadata"]["namespace"]
    known = {f"u{n}": {"profile": {"country": "US" if n % 2 else "FR"}, "visit": {}, "history": []} for n in range(40)}
    account, authority = tmp_path / "account", Authority(tmp_path)
    account.mkdir()
    for file, text in (
        ("ca.crt", authority.ca_file.read_text()),
        ("token", "of-the-account"),
        ("namespace", namespace),
    ):
        (account / file).write_text(text)
    role = the(documents, "Role")["rules"]
    api = ((HOST, 6443), namespace, role, "of-the-account", authority.issue("api", [HOST]))
    started = time.monotonic()
    with (
        lan(len(PODS)) as networks,
        api_server.serve(*api) as maps,
        s3("event-trigger-small"),
        serve_users(known, address=(HOST, 80)),
        Broker() as kafka,
        containers() as run,
    ):
        for topic in ("user-tracking-events", "event-actions"):
            kafka.create_topic(topic, 4)
        for topic in ("event-dead-letters", "event-decisions", "event-control", "user-inspections", "event-audit"):
            kafka.create_topic(topic)
        assert "decisions_topic: event-decisions" in options
        pods = Pods(run, documents, dict(zip(PODS, networks, strict=True)), tmp_path, {"ui-token": TOKEN})
        jobmanager = pods.start("jobmanager")
        pods.start("taskmanager")
        rest = FlinkRest(f"http://{PODS['jobmanager']}:8081")
        wait_for_task_managers(rest, 1, 420)
        pods.start("launch", wait=True)
        pods.start("page")
        with reading(kafka, "event-actions") as actions:
            produce(kafka, known, 0)
            expected = len(known) // 2
            actions.until(expected, 600)
            (job,) = rest.jobs()
            wait_for_checkpoint(rest, job["jid"], 1, 600)
            # As `kubectl port-forward` reaches it: the page takes no other names unless --allowed_host gives them.
            page = partial(requests.get, headers={"Host": "127.0.0.1:8085"}, timeout=60, allow_redirects=False)
            url = f"http://{PODS['page']}:8085"
            until(lambda: page(f"{url}/health").status_code == 200, "the page finds the job healthy")
            assert page(url).status_code == 303, "what the page shows needs its token"
            assert requests.get(url, timeout=60).status_code == 400
            launched = f"{expected} actions, page and checkpoint {time.monotonic() - started:.0f} s after their start"

            killed = time.monotonic()
            assert podman("kill", "--signal", "KILL", jobmanager).returncode == 0
            jobmanager = pods.start("jobmanager")
            until(lambda: [found["jid"] for found in rest.jobs()] == [job["jid"]], "a new JobManager has the job")
            produce(kafka, known, 1)
            actions.until(2 * expected, 600)
            assert len(actions.settle()) == 2 * expected
        recovered = f"the job's actions came again {time.monotonic() - killed:.0f} s after the JobManager was killed"
        assert {name for name in maps.objects if name.startswith("event-trigger")}, maps.objects
        ends = [stopped(name) for name in (run.names[-2], run.names[1], jobmanager)]
    FIGURES.record(pods_of_Kubernetes=f"{launched}; {recovered}; after SIGTERM they end in {' s, '.join(ends)} s")


def produce(kafka: KafkaBroker, known: Mapping[str, Any], turn: int) -> None:
    """An event of each user; those in the US fire."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for user in known:
        event: dict[str, Any] = {"event_id": f"{user}-{turn}", "user_id": user, "event_name": "page_view"}
        event["timestamp"] = int(time.time() * 1000)
        producer.produce("user-tracking-events", orjson.dumps(event), user.encode())
    assert producer.flush(60) == 0


def stopped(name: str) -> str:
    """Stop a container as Kubernetes does; the seconds that it took. It must not have to be killed."""
    started = time.monotonic()
    assert podman("stop", "--time", "60", name).returncode == 0
    assert inspected("inspect", name)["State"]["ExitCode"] != 137, f"{name} was killed: {podman('logs', name).stdout}"
    return f"{time.monotonic() - started:.0f}"
