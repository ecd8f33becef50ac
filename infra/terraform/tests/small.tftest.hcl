# The small tier, number for number as in the architecture specification, and what no tier may do.

mock_provider "aws" {
  source = "./tests/mocks"
}

# What EC2 says about the tier's instance types.
override_data {
  target = module.cluster.data.aws_ec2_instance_type.jobmanager
  values = {
    default_vcpus           = 2
    memory_size             = 4096
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = module.cluster.data.aws_ec2_instance_type.taskmanager
  values = {
    memory_size             = 16384
    network_performance     = "Up to 12.5 Gigabit"
    total_instance_storage  = 0
    supported_architectures = ["x86_64"]
  }
}

variables {
  ami_id                  = "ami-0123456789abcdef0"
  region                  = "eu-central-1"
  name                    = "test"
  release_dir             = "./tests/fixtures/release"
  kafka_bootstrap_servers = "kafka-1:9094,kafka-2:9094"
  kafka_security_group_id = "sg-0123456789abcdef0"
}

run "small" {
  command = apply

  module {
    source = "./examples/small"
  }

  assert {
    condition     = output.cluster.node_groups.jobmanager == { name = "test-jobmanager", minimum = 1, desired = 1, maximum = 2 }
    error_message = "JobManager: 1 instance (one more while it is replaced)."
  }

  assert {
    condition     = output.cluster.machines.jobmanager.vcpus == 2 && output.cluster.machines.jobmanager.memory_mib == 4096 && output.cluster.launch_templates.jobmanager.instance_type == "c6i.large"
    error_message = "JobManager: 2 CPU, 4 GB RAM."
  }

  assert {
    condition     = output.cluster.node_groups.taskmanager == { name = "test-taskmanager", minimum = 1, desired = 1, maximum = 1 }
    error_message = "TaskManager: 1 instance."
  }

  assert {
    condition     = output.cluster.tier.task_slots == 4 && output.cluster.tier.taskmanager_memory_mib == 4 * 1024 && output.cluster.launch_templates.taskmanager.instance_type == "m6i.xlarge"
    error_message = "TaskManager: 4 slots, 4 GB."
  }

  assert {
    condition     = output.cluster.tier.parallelism >= 2 && output.cluster.tier.parallelism <= 4 && output.cluster.tier.kafka_partitions == 4
    error_message = "Parallelism 2-4, 4 Kafka partitions."
  }

  assert {
    condition     = { for disk in output.cluster.launch_templates.taskmanager.block_device_mappings : disk.device_name => disk.ebs[0].volume_size } == { "/dev/xvda" = 30, "/dev/sdf" = 50, "/dev/sdg" = 50, "/dev/sdh" = 100 }
    error_message = "Local state 50 GB, /tmp 50 GB, logs 100 GB."
  }

  assert {
    condition     = output.cluster.tier.checkpoint_storage_gib == 100 && output.cluster.tier.network_bandwidth_gbps == 1
    error_message = "Checkpoint storage 100 GB, network 1 Gbps."
  }

  assert {
    condition     = contains(output.cluster.submit_flags, "--parallelism=4") && contains(output.cluster.submit_flags, "--workers_per_task_manager=4")
    error_message = "Submission: as many Python workers on a TaskManager as it has slots."
  }

  # Security: what checkov was seen to miss comes first.

  assert {
    condition     = length(output.cluster.ingress_rules) > 0 && alltrue([for rule in output.cluster.ingress_rules : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && rule.source_group_id != null])
    error_message = "Every ingress rule names a security group, never an address."
  }

  assert {
    condition     = !anytrue([for rule in output.cluster.ingress_rules : rule.from_port <= 8081 && 8081 <= rule.to_port])
    error_message = "Flink's REST port is open to nobody, the own cluster included."
  }

  assert {
    condition = alltrue(flatten([
      for template in values(output.cluster.launch_templates) : [
        for disk in template.block_device_mappings : disk.ebs[0].encrypted == "true" && disk.ebs[0].volume_type == "gp3" && disk.ebs[0].kms_key_id != null
      ]
    ]))
    error_message = "Every disk, the root disk included, is gp3 and encrypted with our key."
  }

  assert {
    condition     = alltrue([for template in values(output.cluster.launch_templates) : contains([for disk in template.block_device_mappings : disk.device_name], "/dev/xvda")])
    error_message = "The root disk is in the launch template; otherwise the image decides about its encryption."
  }

  assert {
    condition     = alltrue([for template in values(output.cluster.launch_templates) : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "IMDSv2 with a hop limit of 1."
  }

  assert {
    condition     = alltrue([for template in values(output.cluster.launch_templates) : template.network_interfaces[0].associate_public_ip_address == "false"])
    error_message = "No public address."
  }

  assert {
    condition     = strcontains(output.cluster.user_data.jobmanager, "rest.bind-address: \"127.0.0.1\"") && strcontains(output.cluster.user_data.taskmanager, "security.ssl.internal.enabled: \"true\"")
    error_message = "REST on the loopback, internal TLS on."
  }

  assert {
    condition     = !anytrue([for text in values(output.cluster.user_data) : can(regex("(?i)AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|aws_secret_access_key", text))])
    error_message = "No keys in user data."
  }
}
