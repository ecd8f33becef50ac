"""The planned resources, checked one by one: the largest tier with its defaults, and with all options on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.infra import terraform
from tests.infra.terraform import Report

STATE, BY_DEFAULT, EVERYTHING_ON = "state", "large", "everything_on"
RUNS = pytest.mark.parametrize("run", [BY_DEFAULT, EVERYTHING_ON])
NODES = ("zookeeper", "jobmanager", "taskmanager")
ACCESS_LOG = "test-access-log-123456789012"

# What gives an address to the internet, or lets it in, in ways that the tests below do not look at.
FORBIDDEN = {
    *(
        "aws_lb",
        "aws_alb",
        "aws_elb",
        "aws_network_interface",
        "aws_eip_association",
        "aws_globalaccelerator_accelerator",
    ),
    *("aws_security_group_rule", "aws_network_interface_sg_attachment", "aws_vpc_peering_connection"),
    *("aws_key_pair", "aws_iam_user", "aws_iam_access_key", "aws_s3_bucket_acl", "aws_s3_bucket_website_configuration"),
}


def key_of(audited: Report, run: str) -> str:
    if run == STATE:
        (key,) = audited.resources(run, "aws_kms_key")
        return str(key["arn"])
    (alias,) = (found["values"] for found in audited.every(run) if found["type"] == "aws_kms_alias")
    assert alias["name"] == "alias/test"
    return str(alias["target_key_arn"])


# --- network ---


@RUNS
def test_no_ingress_names_an_address(audited: Report, run: str) -> None:
    rules = audited.resources(run, "aws_vpc_security_group_ingress_rule")
    assert len(rules) >= 14
    for rule in rules:
        assert rule["referenced_security_group_id"]
        assert [rule[other] for other in ("cidr_ipv4", "cidr_ipv6", "prefix_list_id") if rule[other]] == []
        assert rule["ip_protocol"] == "tcp"
        assert rule["from_port"] == rule["to_port"] != 8081
    # Rules written inside a group would not be seen above.
    for group in audited.resources(run, "aws_security_group"):
        assert not group.get("ingress")
        assert not group.get("egress")
    (default,) = audited.resources(run, "aws_default_security_group")
    assert default["ingress"] == default["egress"] == []


@RUNS
def test_egress_is_by_reference_except_for_configured_ranges(audited: Report, run: str) -> None:
    rules = audited.resources(run, "aws_vpc_security_group_egress_rule")
    assert len(rules) >= 17
    by_address = [(rule["cidr_ipv4"], rule["to_port"]) for rule in rules if rule["cidr_ipv4"]]
    assert by_address == ([("0.0.0.0/0", 443)] if run == EVERYTHING_ON else [])
    assert [rule for rule in rules if rule["cidr_ipv6"] or rule["ip_protocol"] != "tcp"] == []


@RUNS
def test_no_node_has_a_public_address(audited: Report, run: str) -> None:
    assert {resource["type"] for resource in audited.every(run)} & FORBIDDEN == set()
    templates, instances = audited.resources(run, "aws_launch_template"), audited.resources(run, "aws_instance")
    assert (len(templates), len(instances)) == (2, 3)
    interfaces = [*(template["network_interfaces"][0] for template in templates), *instances]
    assert [interface["associate_public_ip_address"] in (False, "false") for interface in interfaces] == [True] * 5
    assert not any(subnet["map_public_ip_on_launch"] for subnet in audited.resources(run, "aws_subnet"))
    # Elastic addresses belong to NAT gateways.
    addresses = {eip["id"] for eip in audited.resources(run, "aws_eip")}
    assert addresses == {gateway["allocation_id"] for gateway in audited.resources(run, "aws_nat_gateway")}
    assert len(addresses) == (3 if run == EVERYTHING_ON else 0)


@RUNS
def test_no_node_lies_in_a_subnet_that_the_internet_reaches(audited: Report, run: str) -> None:
    gateways = {gateway["id"] for gateway in audited.resources(run, "aws_internet_gateway")}
    assert len(gateways) == (1 if run == EVERYTHING_ON else 0)
    public_tables = {
        route["route_table_id"] for route in audited.resources(run, "aws_route") if route["gateway_id"] in gateways
    }
    tables = {
        association["subnet_id"]: association["route_table_id"]
        for association in audited.resources(run, "aws_route_table_association")
    }
    used = {
        subnet for group in audited.resources(run, "aws_autoscaling_group") for subnet in group["vpc_zone_identifier"]
    }
    used |= {instance["subnet_id"] for instance in audited.resources(run, "aws_instance")}
    used |= {
        subnet for endpoint in audited.resources(run, "aws_vpc_endpoint") for subnet in endpoint["subnet_ids"] or ()
    }
    for cluster in audited.resources(run, "aws_msk_cluster"):
        used |= set(cluster["broker_node_group_info"][0]["client_subnets"])
    assert len(used) == 3
    assert {tables[subnet] for subnet in used} & public_tables == set()


def test_rest_is_reached_through_a_session_only(audited: Report) -> None:
    cluster = audited.output(BY_DEFAULT, "cluster")
    for kind in ("jobmanager", "taskmanager"):
        settings = terraform.files(cluster["user_data"][kind])["/etc/flink/cluster.yaml"].splitlines()
        assert [line for line in settings if line.startswith("rest.")] == [
            'rest.address: "127.0.0.1"',
            'rest.bind-address: "127.0.0.1"',
            'rest.port: "8081"',
        ]
        assert 'security.ssl.internal.enabled: "true"' in settings
        assert 'web.submit.enable: "false"' in settings
    assert cluster["tunnel_command"].startswith("aws ssm start-session ")
    session = {"ssm:UpdateInstanceInformation", "ssmmessages:CreateDataChannel", "ssmmessages:OpenDataChannel"}
    assert session <= set(statements(audited, BY_DEFAULT, "jobmanager")["SessionManager"]["actions"])


# --- nodes ---


@RUNS
def test_every_disk_is_gp3_and_encrypted_with_our_key(audited: Report, run: str) -> None:
    key = key_of(audited, run)
    templates = audited.resources(run, "aws_launch_template")
    for template in templates:
        disks = {disk["device_name"]: disk["ebs"][0] for disk in template["block_device_mappings"]}
        assert "/dev/xvda" in disks  # the root disk: left out, its encryption would be the image's choice
        for disk in disks.values():
            assert (disk["encrypted"], disk["volume_type"], disk["kms_key_id"]) == ("true", "gp3", key)
    instances, volumes = audited.resources(run, "aws_instance"), audited.resources(run, "aws_ebs_volume")
    assert (len(templates), len(instances), len(volumes)) == (2, 3, 3)
    for root in (instance["root_block_device"][0] for instance in instances):
        assert (root["encrypted"], root["volume_type"], root["kms_key_id"]) == (True, "gp3", key)
    for volume in volumes:
        assert (volume["encrypted"], volume["type"], volume["kms_key_id"]) == (True, "gp3", key)


@RUNS
def test_every_node_has_imdsv2_with_a_hop_limit_of_one(audited: Report, run: str) -> None:
    nodes = [*audited.resources(run, "aws_launch_template"), *audited.resources(run, "aws_instance")]
    assert len(nodes) == 5
    for node in nodes:
        (metadata,) = node["metadata_options"]
        assert (metadata["http_tokens"], metadata["http_put_response_hop_limit"]) == ("required", 1)


def test_no_keys_anywhere() -> None:
    assigned = r"\b(key_name|access_key|secret_key|password)\b *=(?!.%s)"  # the boot script's formats have no value
    keys = rf"AKIA[0-9A-Z]{{16}}|PRIVATE KEY-----|{assigned}|aws_secret_access_key"
    for path in terraform.SOURCE.rglob("*"):
        if path.is_file() and ".terraform" not in str(path.relative_to(terraform.SOURCE)):
            text = "\n".join(line for line in path.read_text().splitlines() if "regex(" not in line)
            assert not re.search(keys, text), path


# --- storage and deletion ---


@RUNS
def test_zookeeper_is_not_terminated_by_mistake(audited: Report, run: str) -> None:
    assert [instance["disable_api_termination"] for instance in audited.resources(run, "aws_instance")] == [True] * 3
    assert [volume["final_snapshot"] for volume in audited.resources(run, "aws_ebs_volume")] == [True] * 3


@RUNS
def test_no_plan_of_a_cluster_contains_its_key_or_buckets(audited: Report, run: str) -> None:
    kinds = {found["type"] for found in audited.every(run) if found["mode"] == "managed"}
    assert {kind for kind in kinds if "kms" in kind or kind.startswith("aws_s3_bucket")} == set()
    assert "aws_s3_object" in kinds  # the release


def test_what_keeps_the_state_readable_is_guarded_by_terraform_itself(audited: Report) -> None:
    code = (terraform.SOURCE / "state" / "main.tf").read_text()
    made = {found["type"] for found in audited.every(STATE) if found["mode"] == "managed"}
    guarded = {
        kind
        for kind, body in re.findall(r'^resource "(\w+)" "this" {\n(.*?)^}', code, re.S | re.M)
        if "prevent_destroy = true" in body
    }
    # Without these the objects are still there, private and encrypted.
    assert made - guarded == {
        "aws_s3_bucket_policy",
        "aws_s3_bucket_lifecycle_configuration",
        "aws_s3_bucket_logging",
    }
    assert [key["deletion_window_in_days"] for key in audited.resources(STATE, "aws_kms_key")] == [30]


def by_bucket(audited: Report, kind: str) -> dict[str, dict[str, Any]]:
    """The resource of this kind of each bucket but the access log's, by bucket."""
    resources = {resource["bucket"]: resource for resource in audited.resources(STATE, f"aws_s3_bucket{kind}")}
    assert set(resources) - {ACCESS_LOG} == buckets(audited)
    resources.pop(ACCESS_LOG, None)
    assert len(resources) == 3
    return resources


def buckets(audited: Report) -> set[str]:
    return {bucket["bucket"] for bucket in audited.resources(STATE, "aws_s3_bucket")} - {ACCESS_LOG}


def bucket_arns(audited: Report) -> set[str]:
    return {f"arn:aws:s3:::{bucket}" for bucket in buckets(audited)}


def test_access_to_each_bucket_is_logged_where_only_s3_writes(audited: Report) -> None:
    for bucket, logging in by_bucket(audited, "_logging").items():
        assert (logging["target_bucket"], logging["target_prefix"]) == (ACCESS_LOG, f"{bucket.split('-')[1]}/")
    writes, refuses = audited.policy(STATE, "access_log")
    assert writes["principals"] == [{"identifiers": ["logging.s3.amazonaws.com"], "type": "Service"}]
    assert writes["actions"] == ["s3:PutObject"]
    conditions = {condition["variable"]: set(condition["values"]) for condition in writes["condition"]}
    assert conditions == {"aws:SourceAccount": {"123456789012"}, "aws:SourceArn": bucket_arns(audited)}
    assert (refuses["effect"], refuses["condition"][0]["variable"]) == ("Deny", "aws:SecureTransport")
    (block,) = (
        found
        for found in audited.resources(STATE, "aws_s3_bucket_public_access_block")
        if found["bucket"] == ACCESS_LOG
    )
    assert block["restrict_public_buckets"] is True
    # S3 writes its log with no other encryption.
    (encryption,) = (
        found
        for found in audited.resources(STATE, "aws_s3_bucket_server_side_encryption_configuration")
        if found["bucket"] == ACCESS_LOG
    )
    assert encryption["rule"][0]["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "AES256"


def test_buckets_are_versioned_private_and_encrypted_with_our_key(audited: Report) -> None:
    for versioning in by_bucket(audited, "_versioning").values():
        assert versioning["versioning_configuration"][0]["status"] == "Enabled"
    for block in by_bucket(audited, "_public_access_block").values():
        blocks = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        assert all(block[key] is True for key in blocks)
    for ownership in by_bucket(audited, "_ownership_controls").values():
        assert ownership["rule"][0]["object_ownership"] == "BucketOwnerEnforced"
    for encryption in by_bucket(audited, "_server_side_encryption_configuration").values():
        (default,) = encryption["rule"][0]["apply_server_side_encryption_by_default"]
        assert (default["sse_algorithm"], default["kms_master_key_id"]) == ("aws:kms", key_of(audited, STATE))


def test_buckets_refuse_plain_http(audited: Report) -> None:
    assert by_bucket(audited, "_policy")
    for resource in audited.every(STATE):
        if resource["type"] == "aws_s3_bucket_policy":
            kind, bucket = resource.get("index"), resource["values"]["bucket"]
            if bucket == ACCESS_LOG:
                continue
            # Which document a mocked policy is, its dependencies tell.
            assert any(name.endswith("aws_iam_policy_document.tls_only") for name in resource["depends_on"])
            (deny,) = audited.policy(STATE, f'tls_only["{kind}"]')
            assert (deny["effect"], deny["actions"]) == ("Deny", ["s3:*"])
            assert deny["principals"] == [{"identifiers": ["*"], "type": "*"}]
            assert set(deny["resources"]) == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}
            assert deny["condition"] == [{"test": "Bool", "values": ["false"], "variable": "aws:SecureTransport"}]


def test_lifecycle_rules_expire_no_live_object(audited: Report) -> None:
    deleted: dict[str, int] = {}
    for bucket, lifecycle in by_bucket(audited, "_lifecycle_configuration").items():
        for rule in lifecycle["rule"]:
            assert not rule["transition"]
            for expiration in rule["expiration"]:
                assert not expiration["days"]
                assert not expiration["date"]
            for expiry in rule["noncurrent_version_expiration"]:
                deleted[f"{bucket.split('-')[1]}/{rule['filter'][0]['prefix']}"] = expiry["noncurrent_days"]
    # Deleted checkpoints are nearly all bytes that are ever written.
    assert deleted == {"checkpoints/test/checkpoints/": 1, "checkpoints/test/ha/": 7, "savepoints/": 7, "artifacts/": 7}


def test_the_key_is_this_accounts_and_rotates(audited: Report) -> None:
    (key,) = (resource for resource in audited.every(STATE) if resource["type"] == "aws_kms_key")
    assert key["values"]["enable_key_rotation"] is True
    assert any(name.endswith("aws_iam_policy_document.key") for name in key["depends_on"])
    account, scoping = "123456789012", {"kms:CallerAccount", "aws:SourceAccount"}
    for statement in audited.policy(STATE, "key"):
        scope = {
            condition["variable"]: condition["values"]
            for condition in statement["condition"]
            if condition["test"] == "StringEquals"
        }
        named = [who for principal in statement["principals"] for who in principal["identifiers"]]
        if named == ["logs.eu-central-1.amazonaws.com"]:
            (only,) = statement["condition"]
            assert only["variable"] == "kms:EncryptionContext:aws:logs:arn"
            assert only["values"] == [f"arn:aws:logs:eu-central-1:{account}:log-group:/event-trigger/test*"]
            continue
        assert named == [f"arn:aws:iam::{account}:root"] or [account] in [scope.get(variable) for variable in scoping]
        # Anybody of the account is Auto Scaling's role.
        roles = [
            condition["values"] for condition in statement["condition"] if condition["variable"] == "aws:PrincipalArn"
        ]
        assert named != ["*"] or all("/aws-service-role/autoscaling" in role for (role,) in roles)
        assert named != ["*"] or len(roles) == 1
    for run in (BY_DEFAULT, EVERYTHING_ON):
        for topic in audited.resources(run, "aws_sns_topic"):
            assert topic["kms_master_key_id"] == key["values"]["arn"] == key_of(audited, run)


@RUNS
def test_logs_are_kept_for_a_while_and_encrypted_with_our_key(audited: Report, run: str) -> None:
    groups = {group["name"]: group for group in audited.resources(run, "aws_cloudwatch_log_group")}
    kafka = {"/event-trigger/test/brokers"} if run == EVERYTHING_ON else set()
    assert set(groups) == {"/event-trigger/test", "/event-trigger/test/connections"} | kafka
    for group in groups.values():
        assert group["kms_key_id"] == key_of(audited, run)
        assert group["retention_in_days"] > 0
    (flow,) = audited.resources(run, "aws_flow_log")
    assert flow["traffic_type"] == "ALL"


@RUNS
def test_the_endpoints_of_aws_let_only_this_account_through(audited: Report, run: str) -> None:
    (statement,) = audited.policy(run, "interface_endpoint")
    (condition,) = statement["condition"]
    assert (condition["test"], condition["variable"]) == ("StringEquals", "aws:PrincipalAccount")
    assert condition["values"] == ["123456789012"]
    endpoints = [found for found in audited.every(run) if found["type"] == "aws_vpc_endpoint"]
    for endpoint in endpoints:
        document = "s3_endpoint" if endpoint["name"] == "s3" else "interface_endpoint"
        assert any(name.endswith(f"aws_iam_policy_document.{document}") for name in endpoint["depends_on"])


def test_brokers_log_to_a_group_of_ours(audited: Report) -> None:
    (cluster,) = audited.resources(EVERYTHING_ON, "aws_msk_cluster")
    (logs,) = cluster["logging_info"][0]["broker_logs"][0]["cloudwatch_logs"]
    assert (logs["enabled"], logs["log_group"]) == (True, "/event-trigger/test/brokers")


def test_kafka_is_encrypted_and_authenticated(audited: Report) -> None:
    (cluster,) = audited.resources(EVERYTHING_ON, "aws_msk_cluster")
    (encryption,) = cluster["encryption_info"]
    assert encryption["encryption_at_rest_kms_key_arn"] == key_of(audited, EVERYTHING_ON)
    assert encryption["encryption_in_transit"] == [{"client_broker": "TLS", "in_cluster": True}]
    (authentication,) = cluster["client_authentication"]
    assert authentication["sasl"][0]["iam"] is True
    assert not authentication["unauthenticated"]
    for connectivity in cluster["broker_node_group_info"][0]["connectivity_info"]:
        assert not connectivity["public_access"]


# --- roles ---


def statements(audited: Report, run: str, kind: str) -> dict[str, dict[str, Any]]:
    """The policy statements of a node kind's role, by statement id."""
    return {statement["sid"]: statement for statement in audited.policy(run, f'node["{kind}"]')}


@RUNS
@pytest.mark.parametrize("kind", NODES)
def test_a_role_may_do_no_more_than_its_node_needs(audited: Report, run: str, kind: str) -> None:
    granted = statements(audited, run, kind)
    common = {"Artifacts", "Key", "SessionManager", "Logs", "Metrics", "ZooKeeperLogins"}
    flink = {"StateObjects", "StateList", "InternalTls", "Lifecycle", "Prometheus"}
    kafka = {"KafkaCluster", "KafkaSettings", "KafkaTopics", "KafkaGroupsAndTransactions"}
    kafka = kafka if run == EVERYTHING_ON else set()
    operator = {"KafkaCreateTopics"} if run == EVERYTHING_ON else set()
    secrets = {"Secrets"} if run == EVERYTHING_ON else set()
    creates = {"CreateParameters"}
    own = {"zookeeper": creates, "jobmanager": creates | operator, "taskmanager": secrets}[kind]
    assert set(granted) == common | own | (flink | kafka if kind != "zookeeper" else set())
    for name, statement in granted.items():
        assert statement["effect"] in (None, "Allow")
        assert not statement["not_actions"]
        assert not statement["not_resources"]
        assert [action for action in statement["actions"] if "*" in action] == []
        # Session Manager and PutMetricData know no resources; the latter is held to one namespace.
        assert ("*" in statement["resources"]) == (name in {"SessionManager", "Metrics"})
    by_kind = {arn.split("-")[1]: arn for arn in bucket_arns(audited)}
    assert granted["Artifacts"]["resources"] == [f"{by_kind['artifacts']}/releases/*"]
    assert granted["Artifacts"]["actions"] == ["s3:GetObject"]
    assert granted["Key"]["resources"] == [key_of(audited, run)]
    assert [condition["values"] for condition in granted["Metrics"]["condition"]] == [["EventTrigger/test"]]
    if kind != "zookeeper":
        state = {by_kind["checkpoints"], by_kind["savepoints"]}
        assert set(granted["StateObjects"]["resources"]) == {f"{arn}/test/*" for arn in state}
        assert set(granted["StateList"]["resources"]) == state
        assert [condition["values"] for condition in granted["StateList"]["condition"]] == [["test", "test/*"]]
    # A JobManager's password for ZooKeeper is no TaskManager's, and what is there nobody replaces.
    logins = {"zookeeper": {"jobmanager", "taskmanager"}}.get(kind, {kind})
    assert granted["ZooKeeperLogins"]["actions"] == ["ssm:GetParameter"]
    parameters = "arn:aws:ssm:eu-central-1:123456789012:parameter/event-trigger/test"
    assert set(granted["ZooKeeperLogins"]["resources"]) == {f"{parameters}/zookeeper/{user}" for user in logins}
    if own & creates:
        made = {
            "zookeeper": {f"{parameters}/zookeeper/{user}" for user in logins},
            "jobmanager": {f"{parameters}/internal-tls/1"},
        }
        assert granted["CreateParameters"]["actions"] == ["ssm:PutParameter"]
        assert set(granted["CreateParameters"]["resources"]) == made[kind]
        (condition,) = granted["CreateParameters"]["condition"]
        assert (condition["test"], condition["variable"]) == ("StringNotEquals", "ssm:Overwrite")
    assert ("kms:Encrypt" in granted["Key"]["actions"]) == bool(own & creates)
    if own & secrets:
        assert granted["Secrets"]["actions"] == ["secretsmanager:GetSecretValue"]
        (secret,) = granted["Secrets"]["resources"]
        assert secret.endswith(":secret:webhooks-AbCdEf")


@pytest.mark.parametrize(("run", "denied"), [(BY_DEFAULT, True), (EVERYTHING_ON, False)])
def test_workers_have_a_user_of_their_own_that_reaches_nothing_of_flinks(
    audited: Report, run: str, denied: bool
) -> None:
    outputs = audited.output(run, "cluster") if run == BY_DEFAULT else {"user_data": audited.output(run, "user_data")}
    files = terraform.files(outputs["user_data"]["taskmanager"])
    units = {name: settings(files[f"/etc/systemd/system/{name}"]) for name in TASKMANAGER_UNITS}
    task_manager, listening, worker = (units[name] for name in TASKMANAGER_UNITS)
    assert (task_manager["User"], worker["User"], listening["SocketUser"]) == ("flink", "event-trigger-worker", "flink")
    assert (listening["SocketMode"], listening["Accept"], worker["StandardInput"]) == ("0600", "yes", "socket")
    assert f"EVENT_TRIGGER_WORKER_SOCKET={listening['ListenStream']}" in task_manager["Environment"]
    assert {"/etc/flink", "/data", "/var/log/flink"} == set(worker["InaccessiblePaths"].split())
    assert "ReadWritePaths" not in worker
    assert int(worker["OOMScoreAdjust"]) > 0 > int(task_manager["OOMScoreAdjust"])
    # All that confines the TaskManager confines its workers.
    confining = {
        name: value for name, value in task_manager.items() if name.startswith(("Protect", "Private", "Restrict"))
    }
    assert len(confining) > 10
    assert confining.items() <= worker.items()
    # Who has the credentials of the node's role reads the TLS key with them.
    assert ("169.254.169.254" in worker.get("IPAddressDeny", "")) == denied


TASKMANAGER_UNITS = ("flink-taskmanager.service", "event-trigger-worker.socket", "event-trigger-worker@.service")


def settings(unit: str) -> dict[str, str]:
    """What a unit sets, several lines of the same name joined."""
    found: dict[str, str] = {}
    for line in unit.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def test_what_runs_on_nodes_has_no_privileges_and_few_system_calls() -> None:
    files = {path.name.removesuffix(".tftpl"): path for path in terraform.SOURCE.glob("modules/*/*/*.service*")}
    units = {name: settings(path.read_text()) for name, path in files.items()}
    # Root boots a node, tells Auto Scaling of it and stops its TaskManager.
    assert {name for name, unit in units.items() if "User" not in unit} == {
        "event-trigger-boot.service",
        "event-trigger-registered.service",
        "flink-drain.service",
    }
    confined = {name: unit for name, unit in units.items() if "SystemCallFilter" in unit}
    by_memory = sorted(confined, key=lambda name: -int(confined[name].get("OOMScoreAdjust", "0")))
    assert by_memory[:3] == [
        "event-trigger-worker@.service",
        "event-trigger-savepoint.service",
        "flink-taskmanager.service",
    ]
    assert set(by_memory[3:]) == {"flink-jobmanager.service", "zookeeper.service"}
    for name, unit in confined.items():
        assert unit["SystemCallFilter"].split()[0] == "@system-service", name
        assert (unit["SystemCallArchitectures"], unit["ProtectSystem"]) == ("native", "strict"), name
        assert (unit["NoNewPrivileges"], unit["CapabilityBoundingSet"]) == ("yes", ""), name


def test_zookeeper_lets_in_who_logs_in_and_only_jobmanagers_write(audited: Report) -> None:
    user_data = audited.output(BY_DEFAULT, "cluster")["user_data"]
    zookeeper = terraform.files(user_data["zookeeper"])
    config = zookeeper["/etc/zookeeper/zoo.cfg"].splitlines()
    assert {"enforce.auth.enabled=true", "enforce.auth.schemes=sasl"} <= set(config)
    assert (
        "java.security.auth.login.config=/etc/zookeeper/jaas.conf" in zookeeper["/etc/systemd/system/zookeeper.service"]
    )
    for kind in ("jobmanager", "taskmanager"):
        flink = terraform.files(user_data[kind])["/etc/flink/cluster.yaml"].splitlines()
        assert 'high-availability.zookeeper.client.acl: "creator"' in flink
        assert [line for line in flink if "sasl.disable" in line] == []


@RUNS
def test_the_endpoint_of_s3_leads_to_our_buckets_and_amazon_linux(audited: Report, run: str) -> None:
    arns = bucket_arns(audited)
    allowed = {resource for statement in audited.policy(run, "s3_endpoint") for resource in statement["resources"]}
    assert allowed == {
        *arns,
        *(f"{arn}/*" for arn in arns),
        "arn:aws:s3:::al2023-repos-eu-central-1-*/*",
    }
    names = {endpoint["service_name"].rpartition(".")[2] for endpoint in audited.resources(run, "aws_vpc_endpoint")}
    assert names - {"secretsmanager"} == {
        "s3",
        "ssm",
        "ssmmessages",
        "ec2messages",
        "autoscaling",
        "logs",
        "monitoring",
        "aps-workspaces",
    }
    assert ("secretsmanager" in names) == (run == EVERYTHING_ON)


# --- cost ---


@RUNS
def test_every_instance_and_volume_has_the_cost_tag(audited: Report, run: str) -> None:
    for template in audited.resources(run, "aws_launch_template"):
        tagged = {entry["resource_type"]: entry["tags"] for entry in template["tag_specifications"]}
        assert {kind: tags["Cluster"] for kind, tags in tagged.items()} == {"instance": "test", "volume": "test"}
    for instance in audited.resources(run, "aws_instance"):
        assert instance["tags"]["Cluster"] == instance["root_block_device"][0]["tags"]["Cluster"] == "test"
    assert [volume["tags"]["Cluster"] for volume in audited.resources(run, "aws_ebs_volume")] == ["test"] * 3


def test_a_single_zone_is_that_of_flinks_nodes_and_not_of_zookeepers(audited: Report) -> None:
    for run, zones in ((BY_DEFAULT, 3), (EVERYTHING_ON, 1)):
        groups = audited.resources(run, "aws_autoscaling_group")
        assert [len(group["vpc_zone_identifier"]) for group in groups] == [zones, zones]
        assert len({instance["subnet_id"] for instance in audited.resources(run, "aws_instance")}) == 3


def test_a_budget_counts_the_cluster_and_notifies_the_topic(audited: Report) -> None:
    assert audited.resources(BY_DEFAULT, "aws_budgets_budget") == []
    (budget,) = audited.resources(EVERYTHING_ON, "aws_budgets_budget")
    (topic,) = audited.resources(EVERYTHING_ON, "aws_sns_topic")
    assert (budget["limit_amount"], budget["time_unit"]) == ("90000", "MONTHLY")
    assert [(entry["name"], entry["values"]) for entry in budget["cost_filter"]] == [
        ("TagKeyValue", ["user:Cluster$test"])
    ]
    limits = {entry["notification_type"]: entry["threshold"] for entry in budget["notification"]}
    assert limits == {"ACTUAL": 80, "FORECASTED": 100}
    assert [entry["subscriber_sns_topic_arns"] for entry in budget["notification"]] == [[topic["arn"]]] * 2
    # A topic's policy replaces the one by which alarms may publish.
    (publish,) = audited.policy(EVERYTHING_ON, "alarms")
    assert sorted(publish["actions"]) == ["sns:GetTopicAttributes", "sns:Publish"]
    services = ["aps.amazonaws.com", "budgets.amazonaws.com", "cloudwatch.amazonaws.com"]
    assert publish["principals"] == [{"identifiers": services, "type": "Service"}]
    (key,) = (found for found in audited.policy(STATE, "key") if found["sid"] == "AlarmsToEncryptedTopic")
    assert key["principals"] == publish["principals"]
