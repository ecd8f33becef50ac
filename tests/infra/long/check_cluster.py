"""The small tier, applied to moto, read back, and booted with the user data from moto, as EC2 starts machines.

The tests build on each other in the order of the file. What stands in for what: moto for AWS (S3, SSM and EC2's
descriptions), Debian for Amazon Linux, a NoCloud seed for EC2's user data, sparse loop devices for EBS, smaller JVMs.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import yaml

from runners.flink import artifacts
from runners.flink.local import broker as kafka_broker
from runners.flink.local import processes
from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import oracle_of, random_stream, rule_documents
from tests.flink_cluster import running_since, wait_for_checkpoint, wait_for_recovery
from tests.infra import terraform
from tests.infra.long.machines import HOST, Machine, lan, metadata_service, tunnel, wait_for
from tests.infra.long.workers import check_that_workers_read_nothing_of_flinks
from tests.infra.terraform import ROOT
from tests.integration.jobs import Topics, launch, reading
from tests.oracle import SeenAction, action_differences
from tests.scan import open_ports

NAME = "boot"
ENDPOINT = f"http://{HOST}:5000"
AWS = {
    "AWS_ENDPOINT_URL": ENDPOINT,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# The root of the state as it is; moto ignores the condition of the policy that allows TLS only.
STATE = """
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style       = true
  skip_metadata_api_check = true
  max_retries             = 2
}
"""
STATE_VARIABLES = {
    "TF_VAR_name": NAME,
    "TF_VAR_region": "us-east-1",
    "TF_VAR_attach_deny_insecure_transport_policy": "false",
}
# What moto forgets or answers differently of the ZooKeeper nodes: the next apply would replace them. The first three
# are the module's.
ZOOKEEPER = """
resource "aws_instance" "this" {
  lifecycle {
    ignore_changes = [
      ami, instance_type, user_data_base64,
      associate_public_ip_address, credit_specification, disable_api_termination, hibernation, vpc_security_group_ids,
    ]
  }
}
"""
# As the example of the tier, but what moto cannot do is off, what a laptop has no room for is smaller, AWS is moto.
CODE = """
provider "aws" {{
  region                  = "us-east-1"
  s3_use_path_style       = true
  skip_metadata_api_check = true
  max_retries             = 2
}}

module "cluster" {{
  source = "./terraform"

  name                    = "{name}"
  tier                    = "small"
  release_dir             = "{release}"
  vpc_cidr                = "10.77.0.0/16"
  kafka_bootstrap_servers = "{host}:9092"
  os_packages             = []
  cloudwatch_agent        = false
  ami_id                  = "{ami}"

  jobmanager_memory_mib  = 1024
  taskmanager_memory_mib = 1728
  zookeeper_heap_mib     = 128
  task_slots             = 2
  checkpointing_interval_s = 2

  flink_settings = {{
    "s3.endpoint"          = "{endpoint}"
    "s3.path.style.access" = "true"
    "heartbeat.interval"   = "2000"
    "heartbeat.timeout"    = "15000"
  }}
}}

output "cluster" {{
  value = module.cluster
}}
"""

# What moto does not keep or answers differently, by resource type. test_terraform.py sees what was planned.
FORGOTTEN_BY_MOTO: Mapping[str, set[str]] = {
    "aws_vpc_security_group_ingress_rule": {"description"},
    "aws_vpc_security_group_egress_rule": {"description"},
    "aws_autoscaling_lifecycle_hook": {"notification_target_arn", "role_arn"},
}

# moto 5.2.5 answers 500 when a bucket is emptied whose versioning destroy has ended: its delete markers lack dispose().
MOTO = """
from moto.s3.models import FakeDeleteMarker
from moto.server import main
FakeDeleteMarker.dispose = lambda *_, **__: None
main()
"""

RECORDS = tuple(random_stream(seed=9, users=200, events=6_000))


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    with lan():
        yield


@pytest.fixture(scope="module", autouse=True)
def moto(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-c", MOTO, "-H", HOST, "-p", "5000"],
        env={**os.environ, "PYTHONPATH": os.environ["EVENT_TRIGGER_INFRA_TOOLS"]},
        stdout=log,
        stderr=log,
    )
    try:
        wait_for(lambda: answers(f"{ENDPOINT}/moto-api/"), "moto answers", 300)
        yield
    finally:
        server.kill()
        server.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=30).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def folder(moto: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration, applied."""
    folder = tmp_path_factory.mktemp("apply")
    terraform.copy(folder / "terraform")
    image = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    ami = aws("ssm").get_parameter(Name=image)["Parameter"]["Value"]
    text = CODE.format(name=NAME, release=ROOT / "build" / "release", host=HOST, endpoint=ENDPOINT, ami=ami)
    (folder / "main.tf").write_text(text)
    state = folder / "terraform" / "state"
    (state / "test_override.tf").write_text(STATE)
    (folder / "terraform" / "modules" / "zookeeper" / "test_override.tf").write_text(ZOOKEEPER)
    for root in (state, folder):
        terraform.init(root)
        applied = apply(root)
        assert applied.returncode == 0, applied.stdout[-3000:] + applied.stderr[-3000:]
    return folder


def apply(root: Path, command: str = "apply") -> subprocess.CompletedProcess[str]:
    """Apply or destroy without asking."""
    arguments = (command, "-auto-approve", "-input=false", "-no-color")
    return terraform.run(root, *arguments, env={**AWS, **STATE_VARIABLES}, timeout_s=1800)


@pytest.fixture(scope="module")
def cluster(folder: Path) -> dict[str, Any]:
    """The module's outputs."""
    result = terraform.run(folder, "output", "-json", "-no-color", env=AWS)
    return dict(json.loads(result.stdout)["cluster"]["value"])


def aws(service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def test_what_was_applied_is_there(cluster: dict[str, Any]) -> None:
    ec2, s3 = aws("ec2"), aws("s3")
    groups = aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {(group["AutoScalingGroupName"], group["DesiredCapacity"]) for group in groups} == {
        (f"{NAME}-jobmanager", 1),
        (f"{NAME}-taskmanager", 1),
    }
    templates = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    for template in templates:
        data = template["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert all(disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"])
        assert data["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    for group in ec2.describe_security_groups()["SecurityGroups"]:
        if group["GroupName"].startswith(f"{NAME}-"):
            assert [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]] == []
            assert [rule for rule in group["IpPermissions"] if rule["FromPort"] <= 8081 <= rule["ToPort"]] == []
    # A root and a data volume each.
    assert len(ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [f"{NAME}-zookeeper-*"]}])["Volumes"]) == 6
    for bucket in cluster["bucket_names"].values():
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    artifacts = s3.list_objects_v2(Bucket=cluster["bucket_names"]["artifacts"])["Contents"]
    assert {artifact["Key"].partition("/")[2].partition("-")[0] for artifact in artifacts} == {
        "flink",
        "python",
        "zookeeper",
    }


def test_roles_may_do_no_more_than_they_need(cluster: dict[str, Any]) -> None:
    iam, account = aws("iam"), "123456789012"
    buckets = cluster["bucket_names"]
    for kind in ("zookeeper", "jobmanager", "taskmanager"):
        policy = iam.get_role_policy(RoleName=f"{NAME}-{kind}", PolicyName="node")["PolicyDocument"]
        statements = {statement["Sid"]: statement for statement in policy["Statement"]}
        assert iam.list_attached_role_policies(RoleName=f"{NAME}-{kind}")["AttachedPolicies"] == []
        for name, statement in statements.items():
            actions, resources = as_list(statement["Action"]), as_list(statement["Resource"])
            assert statement["Effect"] == "Allow"
            assert [action for action in actions if "*" in action] == []
            # Session Manager and PutMetricData know no resources; the latter is held to one namespace.
            assert ("*" in resources) == (name in {"SessionManager", "Metrics"})
        objects = {
            arn
            for statement in statements.values()
            for arn in as_list(statement["Resource"])
            if arn.startswith("arn:aws:s3")
        }
        allowed = {f"arn:aws:s3:::{buckets['artifacts']}/releases/*"}
        if kind != "zookeeper":
            for bucket in (buckets["checkpoints"], buckets["savepoints"]):
                allowed |= {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{NAME}/*"}
            assert statements["StateList"]["Condition"]["StringLike"]["s3:prefix"] == [NAME, f"{NAME}/*"]
        assert objects == allowed
        granted: dict[str, set[str]] = {}
        for statement in statements.values():
            for arn in as_list(statement["Resource"]):
                if arn.startswith("arn:aws:ssm"):
                    granted.setdefault(arn, set()).update(as_list(statement["Action"]))
        read, make = {"ssm:GetParameter"}, {"ssm:GetParameter", "ssm:PutParameter"}
        to_lead, to_find = cluster["zookeeper_parameter_names"]
        expected = {
            "zookeeper": {to_lead: make, to_find: make},
            "jobmanager": {cluster["tls_parameter_name"]: make, to_lead: read},
            "taskmanager": {cluster["tls_parameter_name"]: read, to_find: read},
        }[kind]
        assert granted == {
            f"arn:aws:ssm:us-east-1:{account}:parameter{name}": actions for name, actions in expected.items()
        }


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def planned_changes(folder: Path) -> dict[str, set[str]]:
    """By resource type, what a plan changes, except for what moto forgets: attributes, and actions but for updates."""
    planned = terraform.run(folder, "plan", "-input=false", "-no-color", "-out=again", env=AWS)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(terraform.run(folder, "show", "-json", "again", env=AWS).stdout)
    drift: dict[str, set[str]] = {}
    for change in plan["resource_changes"]:
        before, after = change["change"]["before"] or {}, change["change"]["after"] or {}
        unknown = change["change"].get("after_unknown") or {}
        actions = change["change"]["actions"]
        if actions not in (["no-op"], ["read"]):
            changed = drift.setdefault(change["type"], set())
            changed |= {key for key in {*before, *after} if before.get(key) != after.get(key) and not unknown.get(key)}
            changed |= set(actions) - {"update"}
    remembered = {kind: changed - FORGOTTEN_BY_MOTO.get(kind, set()) for kind, changed in drift.items()}
    return {kind: changed for kind, changed in remembered.items() if changed}


def test_a_second_plan_finds_nothing_but_what_moto_forgets(folder: Path, cluster: dict[str, Any]) -> None:
    assert planned_changes(folder) == {}


# --- boot ---


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    """All machines by address, those that are started later included; none is left at the end."""
    known: dict[str, Machine] = {}
    with metadata_service(known):
        try:
            yield known
        finally:
            for machine in known.values():
                machine.remove()


def power_on(
    machines: dict[str, Machine], folder: Path, name: str, address: str, user_data: bytes, volumes: dict[str, int]
) -> Machine:
    number = f"{len(machines) + 1:017x}"
    machine = Machine(
        name=name,
        instance_id=f"i-{number}",
        address=address,
        user_data=user_data,
        volumes_gib=volumes,
        rootfs=Path(os.environ["EVENT_TRIGGER_INFRA_ROOTFS"]),
        folder=folder / name,
    )
    machines[address] = machine
    machine.start()
    return machine


def user_data_of(template: str) -> bytes:
    """User data as EC2 gives it to an instance: compressed, as moto stores it."""
    versions = aws("ec2").describe_launch_template_versions(LaunchTemplateName=template, Versions=["$Latest"])
    return base64.b64decode(versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"])


@pytest.fixture(scope="module")
def disks() -> Path:
    return Path(os.environ["EVENT_TRIGGER_INFRA_MACHINES"])


FLINK_DISKS = {"/dev/sdg": 50, "/dev/sdh": 100}
TASKMANAGER_DISKS = {"/dev/sdf": 50, **FLINK_DISKS}


MOUNTS = {"/data/rocksdb": "/dev/sdf", "/tmp": "/dev/sdg", "/var/log/flink": "/dev/sdh"}  # noqa: S108 - a mount point


@pytest.fixture(scope="module")
def booted(machines: dict[str, Machine], disks: Path, cluster: dict[str, Any]) -> dict[str, Machine]:
    """Three ZooKeeper nodes, a JobManager and a TaskManager, powered on at the same time."""
    zookeeper = gzip.compress(cluster["user_data"]["zookeeper"].encode())
    for number, server in enumerate(cluster["zookeeper_quorum"].split(","), 1):
        power_on(machines, disks, f"zk{number}", server.partition(":")[0], zookeeper, {"/dev/sdf": 20})
    return {
        "jobmanager": power_on(machines, disks, "jm1", "10.77.1.1", user_data_of(f"{NAME}-jobmanager"), FLINK_DISKS),
        "taskmanager": power_on(
            machines, disks, "tm1", "10.77.2.1", user_data_of(f"{NAME}-taskmanager"), TASKMANAGER_DISKS
        ),
    }


@pytest.fixture(scope="module")
def rest(booted: dict[str, Machine]) -> Iterator[FlinkRest]:
    """Flink's REST API through the stand-in of the SSM tunnel."""
    with tunnel(booted["jobmanager"].namespace, 8081, 8081):
        yield FlinkRest("http://127.0.0.1:8081", timeout_s=60)


def registered(rest: FlinkRest) -> set[str]:
    with contextlib.suppress(Exception):
        return {str(task_manager["id"]) for task_manager in rest.task_managers()}
    return set()


def test_the_taskmanager_registers_under_its_instance_id(booted: dict[str, Machine], rest: FlinkRest) -> None:
    machine = booted["taskmanager"]
    try:
        wait_for(lambda: machine.instance_id in registered(rest), "the TaskManager has registered", 1200)
    except AssertionError:
        logs = "\n\n".join(f"== {machine.name}\n{machine.journal()}" for machine in booted.values())
        raise AssertionError(f"the TaskManager has not registered\n{logs}") from None
    # It reports its slots a moment later.
    wait_for(
        lambda: [task_manager["slotsNumber"] for task_manager in rest.task_managers()] == [2], "it has two slots", 300
    )


def test_a_node_says_that_it_has_registered(booted: dict[str, Machine], rest: FlinkRest) -> None:
    for kind, machine in booted.items():

        def journal(machine: Machine = machine) -> str:
            return machine.run("journalctl", "--no-pager", "-u", "event-trigger-registered").stdout

        wait_for(
            lambda kind=kind, journal=journal: f"the {kind} has registered" in journal(), f"{kind} has said it", 600
        )


def test_every_volume_is_mounted_where_it_belongs(booted: dict[str, Machine]) -> None:
    machine = booted["taskmanager"]
    for mount, device in MOUNTS.items():
        output = machine.run("findmnt", "--noheadings", "--output", "SOURCE,FSTYPE", "--mountpoint", mount).stdout
        assert output.splitlines()[-1].split() == [device, "xfs"], mount
    assert machine.run("findmnt", "--noheadings", "--output", "SOURCE", "/var/log/journal").stdout.startswith(
        "/dev/sdh"
    )
    journal = machine.run("journalctl", "--no-pager", "--directory=/var/log/flink/journal", "-u", "event-trigger-boot")
    assert "ready: taskmanager" in journal.stdout


def test_the_boot_may_be_run_again(booted: dict[str, Machine], rest: FlinkRest) -> None:
    machine = booted["taskmanager"]
    before = machine.run("systemctl", "show", "-P", "MainPID", "flink-taskmanager").stdout
    # systemd would have given it this.
    again = machine.run("env", f"AWS_ENDPOINT_URL={ENDPOINT}", "/usr/local/sbin/event-trigger-boot")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "formatting" not in again.stdout
    assert machine.run("systemctl", "show", "-P", "MainPID", "flink-taskmanager").stdout == before


def certificate_of(parameter: str, folder: Path) -> Path:
    """The cluster's key pair as PEM, read as a node reads it."""
    value = aws("ssm").get_parameter(Name=parameter, WithDecryption=True)["Parameter"]["Value"]
    password, store = value.split()
    (folder / "store.p12").write_bytes(base64.b64decode(store))
    pem = folder / "pair.pem"
    subprocess.run(
        ["openssl", "pkcs12", "-in", folder / "store.p12", "-passin", f"pass:{password}", "-nodes", "-out", pem],
        check=True,
    )
    return pem


def subject_of_peer(address: str, port: int, pair: Path | None) -> str:
    """The common name of a node's certificate; raises SSLError if the node refuses ours. TLS 1.2 refuses at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(pair)
        context.load_verify_locations(pair)
        context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_connection((address, port), 30) as plain, context.wrap_socket(plain) as connection:
        names = dict(field[0] for field in (connection.getpeercert() or {}).get("subject", ()))
        return str(names.get("commonName", ""))


def test_rest_is_on_the_loopback_and_internal_traffic_is_tls(
    booted: dict[str, Machine], rest: FlinkRest, cluster: dict[str, Any], tmp_path: Path
) -> None:
    machine = booted["jobmanager"]
    assert rest.overview()["taskmanagers"] == 1
    assert not answers(f"http://{machine.address}:8081/overview")
    ours = certificate_of(cluster["tls_parameter_name"], tmp_path)
    for port in (6123, 6124):  # RPC and blobs
        assert subject_of_peer(machine.address, port, ours) == "flink.internal"
        with pytest.raises(ssl.SSLError):
            subject_of_peer(machine.address, port, None)
    # The key pair is one parameter, encrypted, made once.
    ours_only = [{"Key": "Name", "Values": [cluster["tls_parameter_name"]]}]
    (parameter,) = aws("ssm").describe_parameters(ParameterFilters=ours_only)["Parameters"]
    assert (parameter["Type"], parameter["Version"]) == ("SecureString", 1)


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker that the machines reach."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (kafka_broker, processes):
            patch.setattr(module, "LOCALHOST", HOST)
        with LocalKafka() as broker:
            yield broker


@pytest.fixture(scope="module")
def topics(kafka: LocalKafka) -> Topics:
    return Topics(kafka)


@pytest.fixture
def sessions(booted: dict[str, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop's environment: Terraform, the AWS CLI, credentials. The file lists the SSM sessions that were opened."""
    log = tmp_path / "sessions"
    session = f"{sys.executable} -m tests.infra.long.session {booted['jobmanager'].namespace} {log}"
    real = f"env PYTHONPATH={os.environ['EVENT_TRIGGER_INFRA_TOOLS']} {sys.executable} -m awscli"
    program = tmp_path / "aws"
    program.write_text(
        f'#!/bin/sh\ncase "$1 $2" in "ssm start-session") exec {session} "$@" ;; esac\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in terraform.environment(AWS).items():
        monkeypatch.setenv(name, value)
    return log


def deploy(folder: Path, topics: Topics, tmp_path: Path, *more: str) -> str:
    """The documented command, with the flags that point at this run's topics; the job's id."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump_all(rule_documents("kafka")))
    options = [f"--rules={rules}", "--delivery_guarantee=EXACTLY_ONCE", *topics.options(), *more]
    result = launch("deploy", f"--terraform={folder}", *options, deadline_s=900)
    assert result.returncode == 0, result.stderr
    match = re.search(r"job ([0-9a-f]{32}) is running", result.stderr)
    assert match, result.stderr
    return match[1]


def test_the_documented_command_submits_the_job(
    rest: FlinkRest, folder: Path, topics: Topics, sessions: Path, tmp_path: Path
) -> None:
    rest.wait_for_state(deploy(folder, topics, tmp_path), {"RUNNING"}, 600)

    # One session, to the instance that EC2 calls the JobManager.
    (opened,) = sessions.read_text().splitlines()
    named = [{"Name": "tag:Name", "Values": [f"{NAME}-jobmanager"]}]
    (reservation,) = aws("ec2").describe_instances(Filters=named)["Reservations"]
    assert f"--target {reservation['Instances'][0]['InstanceId']} " in opened


def test_workers_run_as_a_user_that_reads_nothing_of_flinks(booted: dict[str, Machine]) -> None:
    machine = booted["taskmanager"]
    task_manager = machine.run("systemctl", "show", "-P", "MainPID", "flink-taskmanager").stdout.strip()

    def pids() -> list[str]:
        return machine.run("pgrep", "-u", "event-trigger-worker", "-f", "from_socket").stdout.split()

    def logs() -> list[str]:
        return machine.run("grep", "-rlE", "connected in", "/var/log/flink", "--include=worker-*.log").stdout.split()

    wait_for(lambda: len(pids()) == len(logs()) == 2, "two workers have connected", 600)
    workers = pids()
    # Without CAP_SYS_RESOURCE this machine's root cannot lower it, and systemd goes on.
    assert machine.run("systemctl", "show", "-P", "OOMScoreAdjust", "flink-taskmanager").stdout.strip() == "-300"
    assert machine.run("cat", f"/proc/{task_manager}/oom_score_adj").stdout.strip() in ("-300", "0")
    check_that_workers_read_nothing_of_flinks(machine, task_manager, workers)
    # Each logs where it may not write: the file was opened for it.
    assert {machine.run("stat", "-c", "%U", log).stdout.strip() for log in logs()} == {"flink"}


def test_nodes_take_connections_on_the_documented_ports_alone(
    booted: dict[str, Machine], machines: dict[str, Machine]
) -> None:
    """Security groups, which moto does not enforce, then let in those of the same table."""
    section = (ROOT / "docs" / "infrastructure.md").read_text().partition("## Ports")[2].partition("\n## ")[0]
    documented: dict[str, set[int]] = {}
    for node, port in re.findall(r"^\| (ZooKeeper|JobManager|TaskManager) \| (\d+) \|", section, re.M):
        documented.setdefault(node.lower(), set()).add(int(port))
    kinds = {address: kind for kind, machine in booted.items() for address in [machine.address]}
    found: dict[str, set[int]] = {}
    for address in machines:
        found.setdefault(kinds.get(address, "zookeeper"), set()).update(open_ports(address))
    # The leader of ZooKeeper's nodes alone listens to the others.
    assert found == documented


def in_zookeeper(cluster: dict[str, Any], user: str | None, folder: Path, *commands: str) -> str:
    """What ZooKeeper's own client prints for its commands, after a login as one of the users."""
    options = ["-Dzookeeper.sasl.client=false"]
    if user is not None:
        (parameter,) = (name for name in cluster["zookeeper_parameter_names"] if name.endswith(f"/{user}"))
        password = aws("ssm").get_parameter(Name=parameter, WithDecryption=True)["Parameter"]["Value"]
        module = "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.auth.DigestLoginModule"
        (folder / "jaas.conf").write_text(f'Client {{ {module} required username="{user}" password="{password}"; }};')
        options = [f"-Djava.security.auth.login.config={folder / 'jaas.conf'}"]
    jars = ":".join(str(jar) for jar in (artifacts.flink_home() / "lib").glob("*.jar"))
    done = subprocess.run(
        [
            *(artifacts.java(), *options, "-cp", jars),
            "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.ZooKeeperMain",
            *("-server", cluster["zookeeper_quorum"]),
        ],
        input="".join(f"{command}\n" for command in commands), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_only_a_jobmanager_writes_in_zookeeper_and_who_does_not_log_in_reads_nothing(
    cluster: dict[str, Any], rest: FlinkRest, tmp_path: Path
) -> None:
    root = f"/event-trigger/{NAME}"
    found = in_zookeeper(cluster, "taskmanager", tmp_path, f"ls -R {root}", f"getAcl {root}")
    nodes = re.findall(rf"^{root}\S*", found, re.M)
    assert f"{root}/leader/resource_manager/connection_info" in nodes, found
    # Some are of checkpoints, which a running job removes meanwhile.
    rights = in_zookeeper(cluster, "taskmanager", tmp_path, *(f"getAcl {node}" for node in nodes))
    listed = re.findall(r"^'(.*)\n: (\w+)$", rights, re.M)
    assert set(listed) == {("sasl,'jobmanager", "cdrwa"), ("world,'anyone", "r")}, rights
    lasting = [node for node in nodes if "/checkpoints/" not in node]
    assert len(listed) >= 2 * len(lasting) > 20, rights
    leader = f"{root}/leader/resource_manager/connection_info"
    for command in (f"set {leader} mine", f"delete {leader}", f"create {root}/leader/mine x"):
        assert "Insufficient permission" in in_zookeeper(cluster, "taskmanager", tmp_path, command), command
    outside = in_zookeeper(cluster, None, tmp_path, f"get {leader}", f"create {root}/x y")
    assert "pekko.ssl.tcp" not in outside, outside
    assert "Created" not in outside, outside
    assert "Created" in in_zookeeper(cluster, "jobmanager", tmp_path, f"create {root}/tried x", f"delete {root}/tried")
    assert rest.overview()["taskmanagers"] == 1


def test_the_job_recovers_when_the_machine_of_its_taskmanager_is_killed(
    booted: dict[str, Machine],
    machines: dict[str, Machine],
    disks: Path,
    rest: FlinkRest,
    kafka: LocalKafka,
    topics: Topics,
    cluster: dict[str, Any],
) -> None:
    (job_id,) = (job["jid"] for job in rest.jobs() if job["state"] == "RUNNING")
    oracle = oracle_of(RECORDS, {})
    half = len(RECORDS) // 2
    with reading(kafka, topics.actions) as actions:
        topics.produce(RECORDS[:half])
        wait_for_checkpoint(rest, job_id, rest.checkpoints(job_id)["counts"]["completed"] + 2, 600)
        assert objects(cluster["bucket_names"]["checkpoints"], f"{NAME}/checkpoints/{job_id}/")

        since, killed = running_since(rest, job_id), booted["taskmanager"]
        topics.produce(RECORDS[half:])
        killed.kill()
        # What Auto Scaling does next.
        replacement = power_on(
            machines, disks, "tm2", "10.77.2.2", user_data_of(f"{NAME}-taskmanager"), TASKMANAGER_DISKS
        )
        wait_for_recovery(rest, job_id, since, 1200)
        wait_for(lambda: registered(rest) == {replacement.instance_id}, "only the replacement is registered", 300)

        actions.until(len(oracle.actions), 900)
        seen = [SeenAction.of_kafka(message.value(), message.headers()) for message in actions.settle()]
        assert action_differences(oracle, seen) == []
    assert rest.job(job_id)["state"] == "RUNNING"
    booted["taskmanager"] = replacement


def objects(bucket: str, prefix: str) -> list[str]:
    listing = aws("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for entry in listing.get("Contents", [])]


def test_every_metric_that_alarms_look_at_is_reported(booted: dict[str, Machine]) -> None:
    code = (terraform.SOURCE / "modules/observability/main.tf").read_text()
    alarmed = set(re.findall(r'"(flink_\w+)"', code))
    assert len(alarmed) >= 10

    def missing() -> set[str]:
        reported = set()
        for machine in (booted["jobmanager"], booted["taskmanager"]):
            with contextlib.suppress(requests.RequestException):
                page = requests.get(f"http://{machine.address}:9249/", timeout=60).text
                reported |= set(re.findall(r"^(flink_\w+)\{", page, re.M))
        return alarmed - reported

    deadline = time.monotonic() + 600
    while (left := missing()) and time.monotonic() < deadline:
        threading.Event().wait(2)
    assert left == set()


def test_the_leading_jobmanager_takes_the_savepoints_of_the_timer(
    booted: dict[str, Machine], cluster: dict[str, Any], rest: FlinkRest
) -> None:
    bucket, (job_id,) = cluster["bucket_names"]["savepoints"], [job["jid"] for job in rest.jobs()]
    before = set(objects(bucket, f"{NAME}/savepoints/"))
    machine = booted["jobmanager"]
    started = machine.run("systemctl", "start", "event-trigger-savepoint")
    journal = machine.run("journalctl", "--no-pager", "-u", "event-trigger-savepoint").stdout
    assert started.returncode == 0, journal
    (path,) = re.findall(rf"job {job_id}: s3://{bucket}/(\S+)", journal)
    assert f"{path}/_metadata" in set(objects(bucket, f"{NAME}/savepoints/")) - before
    counted = aws("cloudwatch").list_metrics(MetricName="savepoints_taken")["Metrics"]
    assert len(counted) == 1


def test_a_killed_jobmanager_process_comes_back_with_the_job(booted: dict[str, Machine], rest: FlinkRest) -> None:
    machine = booted["jobmanager"]
    (job,) = [running for running in rest.jobs() if running["state"] == "RUNNING"]
    pid = machine.run("systemctl", "show", "-P", "MainPID", "flink-jobmanager").stdout.strip()
    assert machine.run("kill", "-9", pid).returncode == 0

    def running_again() -> bool:
        now = machine.run("systemctl", "show", "-P", "MainPID", "flink-jobmanager").stdout.strip()
        with contextlib.suppress(Exception):
            return now != pid and rest.job(job["jid"])["state"] == "RUNNING"
        return False

    wait_for(running_again, "systemd restarted the JobManager and ZooKeeper gave it its job back", 1200)
    rest.wait_for_state(job["jid"], {"RUNNING"}, 300)  # and its tasks run


def instances() -> set[str]:
    """The ids of the instances that run."""
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    reservations = aws("ec2").describe_instances(Filters=running)["Reservations"]
    return {instance["InstanceId"] for reservation in reservations for instance in reservation["Instances"]}


def test_one_more_taskmanager_replaces_no_node(folder: Path, cluster: dict[str, Any]) -> None:
    before, code = instances(), folder / "main.tf"
    code.write_text(
        code.read_text().replace("task_slots ", "taskmanager_count = 2\n  taskmanager_max_count = 2\n  task_slots ", 1)
    )
    changes = planned_changes(folder)
    assert "aws_autoscaling_group" in changes
    assert changes.keys().isdisjoint({"aws_launch_template", "aws_instance"})
    assert set().union(*changes.values()).isdisjoint({"create", "delete"})
    applied = apply(folder)
    assert applied.returncode == 0, applied.stdout[-3000:] + applied.stderr[-3000:]
    after = instances()
    assert (after >= before, len(after - before)) == (True, 1)


def test_a_job_that_was_stopped_goes_on_from_its_savepoint(
    rest: FlinkRest, folder: Path, topics: Topics, sessions: Path, cluster: dict[str, Any], tmp_path: Path
) -> None:
    (job_id,) = (job["jid"] for job in rest.jobs() if job["state"] == "RUNNING")
    savepoint = rest.stop(job_id, deadline_s=900)
    assert savepoint.startswith(f"s3://{cluster['bucket_names']['savepoints']}/{NAME}/savepoints/")
    again = deploy(folder, topics, tmp_path, f"--savepoint_path={savepoint}")
    rest.wait_for_state(again, {"RUNNING"}, 600)
    restored = rest.checkpoints(again)["latest"]["restored"]
    assert (restored["external_path"], restored["is_savepoint"]) == (savepoint, True)
    assert len(sessions.read_text().splitlines()) == 1


def most_subtasks(rest: FlinkRest) -> int:
    """With how many subtasks a step of the job runs at most; 0 while it restarts."""
    for job in rest.jobs():
        if job["state"] == "RUNNING":
            vertices = rest.job(job["jid"])["vertices"]
            return max(int(vertex["tasks"]["RUNNING"]) for vertex in vertices)
    return 0


def test_the_job_takes_a_new_taskmanager_in(
    booted: dict[str, Machine], machines: dict[str, Machine], disks: Path, rest: FlinkRest
) -> None:
    # It was submitted with the slots of the plan, and runs on those that there are.
    wait_for(lambda: most_subtasks(rest) == 2, "the job runs on the slots of one TaskManager", 300)
    new = power_on(machines, disks, "tm3", "10.77.2.3", user_data_of(f"{NAME}-taskmanager"), TASKMANAGER_DISKS)
    wait_for(lambda: new.instance_id in registered(rest), "the new TaskManager has registered", 1200)
    wait_for(lambda: most_subtasks(rest) == 4, "the job runs on all slots", 600)
    booted["new"] = new


def test_a_drained_taskmanager_leaves_in_order(booted: dict[str, Machine], rest: FlinkRest) -> None:
    machine, new = booted["taskmanager"], booted["new"]
    assert registered(rest) == {machine.instance_id, new.instance_id}
    machine.target_lifecycle_state = "Terminated"
    wait_for(lambda: registered(rest) == {new.instance_id}, "the TaskManager has left", 300)
    wait_for(lambda: most_subtasks(rest) == 2, "the job goes on with the slots that are left", 300)
    # It deregistered; Flink did not have to wait for a missing heartbeat.
    log = booted["jobmanager"].run("cat", "/var/log/flink/jobmanager.log").stdout
    assert f"Closing TaskExecutor connection {machine.instance_id} because: The TaskExecutor is shutting down" in log
    # A JVM that is stopped while tasks are being deployed may end with Flink's own status: failed, but ended.
    state = ("systemctl", "is-active", "flink-taskmanager")
    wait_for(lambda: machine.run(*state).stdout.strip() in ("inactive", "failed"), "its service has ended", 300)
    journal = machine.run("journalctl", "--no-pager", "-u", "flink-drain").stdout
    assert "this instance is taken away: stopping the TaskManager" in journal


def test_destroy_leaves_the_state_and_nothing_else(
    folder: Path, cluster: dict[str, Any], machines: dict[str, Machine]
) -> None:
    # The groups' instances end before the buckets they write to are emptied.
    for machine in machines.values():
        machine.remove()
    # The example's: protection is on, which does not stop Terraform.
    destroyed = apply(folder, "destroy")
    assert destroyed.returncode == 0, destroyed.stdout[-3000:] + destroyed.stderr[-3000:]
    assert aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert instances() == set()

    # The state is all there, readable and private.
    names = {bucket["Name"] for bucket in aws("s3").list_buckets()["Buckets"]}
    access_log = {name for name in names if name.startswith(f"{NAME}-access-log-")}
    assert (names - access_log, len(access_log)) == (set(cluster["bucket_names"].values()), 1)
    assert objects(cluster["bucket_names"]["savepoints"], f"{NAME}/savepoints/")
    key = aws("kms").describe_key(KeyId=cluster["kms_key_arn"])["KeyMetadata"]
    assert key["KeyState"] == "Enabled"
    for bucket in cluster["bucket_names"].values():
        assert aws("s3").get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert all(aws("s3").get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_the_state_is_destroyed_only_on_purpose(folder: Path, cluster: dict[str, Any]) -> None:
    state = folder / "terraform" / "state"
    refused = apply(state, "destroy")
    assert refused.returncode != 0
    assert "Instance cannot be destroyed" in refused.stderr
    assert objects(cluster["bucket_names"]["savepoints"], f"{NAME}/savepoints/")
    terraform.allow_destroy(state)
    for command in ("apply", "destroy"):
        done = apply(state, command)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert aws("s3").list_buckets()["Buckets"] == []
