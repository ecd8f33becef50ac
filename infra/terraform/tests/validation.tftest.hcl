# Input that must be refused, with everything else as the small tier has it.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_data {
  target = data.aws_ec2_instance_type.jobmanager
  values = {
    memory_size             = 4096
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = data.aws_ec2_instance_type.taskmanager
  values = {
    memory_size             = 16384
    network_performance     = "Up to 12.5 Gigabit"
    total_instance_storage  = 0
    supported_architectures = ["x86_64"]
  }
}

variables {
  ami_id                  = "ami-0123456789abcdef0"
  name                    = "test"
  tier                    = "small"
  release_dir             = "./tests/fixtures/release"
  kafka_bootstrap_servers = "kafka-1:9094"
}

run "every_number_out_of_range" {
  command = plan

  variables {
    ami_id                    = "latest"
    name                      = "Test_1"
    jobmanager_standby_count  = 3
    taskmanager_memory_mib    = 100
    task_slots                = 0
    managed_memory_fraction   = 0.95
    rocksdb_volume_gib        = 1
    vpc_cidr                  = "10.0.0.0/8"
    nat_gateway_count         = 2
    checkpointing_interval_s  = 0
    kafka_bootstrap_servers   = "kafka"
    taskmanager_instance_type = "big"
    internal_tls_generation   = 0
    max_disk_percent          = 100
    monthly_budget_usd        = 0
    savepoint_interval_hours  = 25
    savepoint_retention_days  = 0
    kafka_broker_count        = 4
    scale_out_lag             = 0
    flink_settings            = { "rest.bind-address" = "0.0.0.0" }
    secret_arns               = ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:*"]
    egress                    = { all = { description = "all", from = ["taskmanager"], port = 80, cidr_ipv4 = "0.0.0.0/0" } }
  }

  expect_failures = [
    var.name, var.ami_id, var.jobmanager_standby_count, var.taskmanager_memory_mib, var.task_slots, var.managed_memory_fraction,
    var.rocksdb_volume_gib, var.vpc_cidr, var.nat_gateway_count,
    var.checkpointing_interval_s, var.kafka_bootstrap_servers, var.taskmanager_instance_type,
    var.internal_tls_generation, var.max_disk_percent, var.monthly_budget_usd, var.flink_settings, var.egress,
    var.secret_arns, var.savepoint_interval_hours, var.savepoint_retention_days, var.kafka_broker_count, var.scale_out_lag,
  ]
}

run "no_memory_left_for_the_heap" {
  command = plan

  variables {
    managed_memory_fraction = 0.6
    network_memory_fraction = 0.4
  }

  expect_failures = [var.network_memory_fraction]
}

run "unknown_tier_and_no_release" {
  command = plan

  variables {
    tier        = "huge"
    release_dir = "./tests/fixtures"
  }

  expect_failures = [var.tier, var.release_dir]
}

# (16384 + 4 * 1536) * 1.1 MiB are more than 16 GiB; so are 4 workers of 3 GiB beside a TaskManager of 4 GiB.
run "taskmanager_larger_than_its_instance" {
  command = plan

  variables {
    taskmanager_memory_mib = 16384
  }

  expect_failures = [data.aws_ec2_instance_type.taskmanager]
}

run "python_workers_larger_than_their_instance" {
  command = plan

  variables {
    python_worker_memory_mib = 3072
  }

  expect_failures = [data.aws_ec2_instance_type.taskmanager]
}

run "jobmanager_without_room_for_its_system" {
  command = plan

  variables {
    jobmanager_memory_mib = 3800
  }

  expect_failures = [data.aws_ec2_instance_type.jobmanager]
}

run "network_too_slow_or_no_instance_store" {
  command = plan

  variables {
    network_bandwidth_gbps    = 25
    rocksdb_on_instance_store = true
  }

  expect_failures = [data.aws_ec2_instance_type.taskmanager]
}

run "two_disks_of_instance_store" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.taskmanager
    values = {
      memory_size             = 16384
      network_performance     = "Up to 12.5 Gigabit"
      total_instance_storage  = 1800
      instance_disks          = [{ count = 2, size = 900, type = "ssd" }]
      supported_architectures = ["x86_64"]
    }
  }

  variables {
    rocksdb_on_instance_store = true
  }

  expect_failures = [data.aws_ec2_instance_type.taskmanager]
}

run "parallelism_beyond_all_slots_and_both_kafkas" {
  command = plan

  variables {
    parallelism  = 5
    create_kafka = true
  }

  expect_failures = [var.parallelism, var.kafka_bootstrap_servers]
}

run "elastic_from_one_taskmanager_without_metrics" {
  command = plan

  variables {
    elastic                = true
    cloudwatch_agent       = false
    taskmanager_spot_types = ["m6a.xlarge"]
  }

  expect_failures = [var.elastic, var.taskmanager_spot_types]
}

run "spot_instances_with_the_default_scheduler" {
  command = plan

  variables {
    taskmanager_on_demand_count = 1
    flink_settings              = { "jobmanager.scheduler" = "Default" }
  }

  expect_failures = [terraform_data.fixed]
}

run "spot_types_on_which_nothing_fits" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.spot
    values = {
      memory_size              = 8192
      supported_architectures  = ["arm64"]
      supported_usages_classes = ["on-demand"]
    }
  }

  variables {
    taskmanager_on_demand_count = 0
    taskmanager_spot_types      = ["m7g.large"]
  }

  expect_failures = [data.aws_ec2_instance_type.spot]
}

# 9 TaskManagers of 4 slots are more than the small tier's 32 user shards.
run "more_slots_than_user_shards" {
  command = plan

  variables {
    taskmanager_max_count = 9
  }

  expect_failures = [terraform_data.fixed]
}

run "numbers_are_overridden" {
  command = plan

  variables {
    taskmanager_count      = 2
    taskmanager_max_count  = 3
    taskmanager_memory_mib = 6144
    rocksdb_volume_gib     = 75
    parallelism            = 12
  }

  assert {
    condition     = output.tier.taskmanager_count == 2 && output.tier.taskmanager_max_count == 3 && output.tier.taskmanager_memory_mib == 6144 && output.tier.rocksdb_volume_gib == 75 && output.tier.parallelism == 12
    error_message = "Every number of the tier can be overridden."
  }

  assert {
    condition     = output.node_groups.taskmanager.desired == 2 && output.node_groups.taskmanager.maximum == 3
    error_message = "The group has the overridden sizes."
  }
}
