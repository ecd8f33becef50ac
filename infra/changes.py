"""What changing an input of a cluster does: a column of infra/terraform/README.md, compared with plans by a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NOTHING: Final = "nothing"
LAUNCH: Final = "next launch"
IN_PLACE: Final = "in place"
TASKMANAGERS: Final = "rolls TaskManagers"
JOBMANAGERS: Final = "rolls JobManagers"
GROUPS: Final = "rolls JobManagers and TaskManagers"
ZOOKEEPER: Final = "ZooKeeper by hand"
EVERY_NODE: Final = f"{GROUPS}; {ZOOKEEPER}"
REFUSED: Final = "refused"


@dataclass(frozen=True)
class Change:
    """What a change does, and an example that shows it: values of inputs as Terraform writes them."""

    effect: str
    example: Mapping[str, str]


def _change(effect: str, name: str, value: str, **others: str) -> tuple[str, Change]:
    return name, Change(effect, {name: value, **others})


# The cluster that the examples change.
BASE: Final[Mapping[str, str]] = {
    "name": '"test"',
    "tier": '"medium"',
    "release_dir": '"./tests/fixtures/release"',
    "ami_id": '"ami-0123456789abcdef0"',
    "create_kafka": "true",
}

SUBNETS: Final = '["subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]'
SECRETS: Final = '["arn:aws:secretsmanager:eu-central-1:123456789012:secret:webhooks-AbCdEf"]'

CHANGES: Final[Mapping[str, Change]] = dict(
    [
        _change(REFUSED, "name", '"other"'),
        _change(GROUPS, "tier", '"large"'),
        _change(EVERY_NODE, "release_dir", '"./tests/fixtures/newer"'),
        _change(IN_PLACE, "deletion_protection", "false"),
        _change(JOBMANAGERS, "jobmanager_instance_type", '"c6i.4xlarge"'),
        _change(IN_PLACE, "jobmanager_standby_count", "2"),
        _change(JOBMANAGERS, "jobmanager_memory_mib", "6144"),
        _change(TASKMANAGERS, "taskmanager_instance_type", '"m6i.4xlarge"'),
        _change(IN_PLACE, "taskmanager_count", "5"),
        _change(IN_PLACE, "taskmanager_min_count", "2"),
        _change(IN_PLACE, "taskmanager_max_count", "10"),
        _change(GROUPS, "elastic", "true"),
        # The provider starts a refresh for a group of several types, or another mix of them.
        _change(TASKMANAGERS, "taskmanager_on_demand_count", "2"),
        _change(TASKMANAGERS, "taskmanager_spot_types", '["m6a.2xlarge"]', taskmanager_on_demand_count="2"),
        _change(NOTHING, "scale_out_lag", "1000000"),
        _change(TASKMANAGERS, "taskmanager_memory_mib", "12288"),
        _change(GROUPS, "task_slots", "3"),
        _change(LAUNCH, "python_worker_memory_mib", "2048"),
        _change(TASKMANAGERS, "managed_memory_fraction", "0.5"),
        _change(TASKMANAGERS, "network_memory_fraction", "0.2"),
        _change(NOTHING, "network_bandwidth_gbps", "25"),
        _change(IN_PLACE, "drain_timeout_s", "60"),
        _change(LAUNCH, "parallelism", "8"),
        _change(LAUNCH, "user_shards", "128"),
        _change(LAUNCH, "max_parallelism", "128"),
        _change(IN_PLACE, "kafka_partitions", "64"),
        _change(LAUNCH, "checkpointing_interval_s", "30"),
        _change(GROUPS, "flink_settings", '{ "heartbeat.timeout" = "30000" }'),
        _change(TASKMANAGERS, "rocksdb_on_instance_store", "true"),
        _change(TASKMANAGERS, "rocksdb_volume_gib", "200"),
        _change(TASKMANAGERS, "rocksdb_volume_iops", "8000"),
        _change(TASKMANAGERS, "rocksdb_volume_throughput", "500"),
        _change(GROUPS, "tmp_volume_gib", "60"),
        _change(GROUPS, "log_volume_gib", "120"),
        _change(GROUPS, "root_volume_gib", "40"),
        _change(IN_PLACE, "checkpoint_storage_gib", "1000"),
        _change(IN_PLACE, "savepoint_storage_gib", "1000"),
        _change(ZOOKEEPER, "zookeeper_instance_type", '"t3.medium"'),
        _change(ZOOKEEPER, "zookeeper_heap_mib", "256"),
        _change(IN_PLACE, "zookeeper_volume_gib", "30"),
        _change(REFUSED, "vpc_id", '"vpc-0123456789abcdef0"', subnet_ids=SUBNETS),
        _change(REFUSED, "subnet_ids", SUBNETS, vpc_id='"vpc-0123456789abcdef0"'),
        # In a VPC of the cluster's own there are no others; between VPCs there is no change.
        _change(REFUSED, "vpc_endpoints", "false", subnet_ids=SUBNETS, vpc_id='"vpc-0123456789abcdef0"'),
        _change(REFUSED, "zookeeper_host_number", "11"),
        _change(REFUSED, "vpc_cidr", '"10.61.0.0/16"'),
        _change(IN_PLACE, "single_zone", "true"),
        _change(IN_PLACE, "nat_gateway_count", "1"),
        _change(
            IN_PLACE,
            "egress",
            '{ api = { description = "API", from = ["taskmanager"], port = 443, cidr_ipv4 = "10.0.0.0/16" } }',
        ),
        _change(IN_PLACE, "secret_arns", SECRETS),
        _change(IN_PLACE, "prometheus_security_group_id", '"sg-0123456789abcdef0"'),
        # With secrets workers have credentials as before.
        _change(IN_PLACE, "kafka_bootstrap_servers", '"kafka-1:9094"', create_kafka="false", secret_arns=SECRETS),
        _change(TASKMANAGERS, "create_kafka", "false", kafka_bootstrap_servers='"kafka-1:9094"'),
        _change(IN_PLACE, "kafka_version", '"3.9.x"'),
        _change(IN_PLACE, "kafka_broker_instance_type", '"kafka.m7g.2xlarge"'),
        _change(IN_PLACE, "kafka_broker_count", "6"),
        _change(NOTHING, "kafka_broker_volume_gib", "2000"),
        _change(EVERY_NODE, "ami_id", '"ami-0fedcba9876543210"'),
        _change(EVERY_NODE, "os_packages", "[]"),
        _change(EVERY_NODE, "cloudwatch_agent", "false"),
        _change(GROUPS, "internal_tls_generation", "2"),
        _change(JOBMANAGERS, "savepoint_interval_hours", "6"),
        _change(JOBMANAGERS, "savepoint_retention_days", "14"),
        _change(IN_PLACE, "max_disk_percent", "70"),
        _change(IN_PLACE, "monthly_budget_usd", "9000"),
        _change(IN_PLACE, "log_retention_days", "14"),
    ]
)
