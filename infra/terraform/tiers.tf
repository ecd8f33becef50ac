# The three tiers, number for number from the architecture specification (docs/infrastructure.md lists what differs and
# why). Every number can be overridden by the variable of its name. deleted_checkpoint_gib and the brokers are not the
# specification's: they are what `event-trigger capacity` calculates of a tier's load, all of the state uploaded by each
# checkpoint, and a day of records on the brokers' volumes, as far as volumes can be so large.

locals {
  tiers = {
    small = {
      jobmanager_instance_type   = "c6i.large" # 2 vCPU, 4 GiB
      jobmanager_standby_count   = 0
      jobmanager_memory_mib      = 2048
      taskmanager_instance_type  = "m6i.xlarge" # 4 vCPU, 16 GiB
      taskmanager_count          = 1
      taskmanager_min_count      = 1
      taskmanager_max_count      = 1
      taskmanager_memory_mib     = 4096
      rocksdb_on_instance_store  = false
      rocksdb_volume_gib         = 50
      checkpoint_storage_gib     = 100
      deleted_checkpoint_gib     = 928
      savepoint_storage_gib      = 500
      network_bandwidth_gbps     = 1
      kafka_partitions           = 4
      kafka_broker_instance_type = "kafka.m7g.large"
      kafka_broker_count         = 3
      kafka_broker_volume_gib    = 1083
      user_shards                = 32
      max_parallelism            = 128
      scale_out_lag              = 300000
    }

    medium = {
      jobmanager_instance_type   = "c6i.xlarge" # 4 vCPU, 8 GiB
      jobmanager_standby_count   = 1
      jobmanager_memory_mib      = 4096
      taskmanager_instance_type  = "m6i.2xlarge" # 8 vCPU, 32 GiB
      taskmanager_count          = 4
      taskmanager_min_count      = 4
      taskmanager_max_count      = 8
      taskmanager_memory_mib     = 8192
      rocksdb_on_instance_store  = false
      rocksdb_volume_gib         = 100
      checkpoint_storage_gib     = 500
      deleted_checkpoint_gib     = 9272
      savepoint_storage_gib      = 500
      network_bandwidth_gbps     = 10
      kafka_partitions           = 32
      kafka_broker_instance_type = "kafka.m7g.xlarge"
      kafka_broker_count         = 3
      kafka_broker_volume_gib    = 10825
      user_shards                = 256
      max_parallelism            = 256
      scale_out_lag              = 375000
    }

    large = {
      jobmanager_instance_type   = "c6i.2xlarge" # 8 vCPU, 16 GiB
      jobmanager_standby_count   = 2
      jobmanager_memory_mib      = 8192
      taskmanager_instance_type  = "m6idn.2xlarge" # 8 vCPU, 32 GiB, 474 GB NVMe
      taskmanager_count          = 20
      taskmanager_min_count      = 20
      taskmanager_max_count      = 50
      taskmanager_memory_mib     = 16384
      rocksdb_on_instance_store  = true
      rocksdb_volume_gib         = 200
      checkpoint_storage_gib     = 2048
      deleted_checkpoint_gib     = 92718
      savepoint_storage_gib      = 500
      network_bandwidth_gbps     = 25
      kafka_partitions           = 200
      kafka_broker_instance_type = "kafka.m7g.8xlarge"
      kafka_broker_count         = 6
      kafka_broker_volume_gib    = 16384
      user_shards                = 1600
      max_parallelism            = 1600
      scale_out_lag              = 600000
    }
  }

  overrides = {
    jobmanager_instance_type   = var.jobmanager_instance_type
    jobmanager_standby_count   = var.jobmanager_standby_count
    jobmanager_memory_mib      = var.jobmanager_memory_mib
    taskmanager_instance_type  = var.taskmanager_instance_type
    taskmanager_count          = var.taskmanager_count
    taskmanager_min_count      = var.taskmanager_min_count
    taskmanager_max_count      = var.taskmanager_max_count
    taskmanager_memory_mib     = var.taskmanager_memory_mib
    rocksdb_on_instance_store  = var.rocksdb_on_instance_store
    rocksdb_volume_gib         = var.rocksdb_volume_gib
    checkpoint_storage_gib     = var.checkpoint_storage_gib
    deleted_checkpoint_gib     = null
    savepoint_storage_gib      = var.savepoint_storage_gib
    network_bandwidth_gbps     = var.network_bandwidth_gbps
    kafka_partitions           = var.kafka_partitions
    kafka_broker_instance_type = var.kafka_broker_instance_type
    kafka_broker_count         = var.kafka_broker_count
    kafka_broker_volume_gib    = var.kafka_broker_volume_gib
    user_shards                = var.user_shards
    max_parallelism            = var.max_parallelism
    scale_out_lag              = var.scale_out_lag
  }

  tier = { for key, value in local.tiers[var.tier] : key => local.overrides[key] == null ? value : local.overrides[key] }

  slots       = local.tier.taskmanager_count * var.task_slots
  max_slots   = local.tier.taskmanager_max_count * var.task_slots
  parallelism = coalesce(var.parallelism, var.elastic ? local.max_slots : local.slots)

  # What has to fit an instance: Flink's process, a Python worker a slot, and a tenth for the operating system.
  jobmanager_needs_mib  = local.tier.jobmanager_memory_mib * 1.1
  taskmanager_needs_mib = (local.tier.taskmanager_memory_mib + var.task_slots * var.python_worker_memory_mib) * 1.1
}

data "aws_ec2_instance_type" "jobmanager" {
  instance_type = local.tier.jobmanager_instance_type

  lifecycle {
    postcondition {
      condition     = self.memory_size >= local.jobmanager_needs_mib
      error_message = "${self.instance_type} has ${self.memory_size} MiB; a JobManager of ${local.tier.jobmanager_memory_mib} MiB needs ${ceil(local.jobmanager_needs_mib)} MiB."
    }

    postcondition {
      condition     = contains(self.supported_architectures, "x86_64")
      error_message = "${self.instance_type} is not x86_64, for which the artifacts are built."
    }
  }
}

data "aws_ec2_instance_type" "taskmanager" {
  instance_type = local.tier.taskmanager_instance_type

  lifecycle {
    postcondition {
      condition     = self.memory_size >= local.taskmanager_needs_mib
      error_message = "${self.instance_type} has ${self.memory_size} MiB; a TaskManager of ${local.tier.taskmanager_memory_mib} MiB and ${var.task_slots} Python workers of ${var.python_worker_memory_mib} MiB need ${ceil(local.taskmanager_needs_mib)} MiB with 10 % for the operating system."
    }

    # "10 Gigabit" or "Up to 12.5 Gigabit"
    postcondition {
      condition     = try(tonumber(regex("([0-9.]+) Gigabit", self.network_performance)[0]), 0) >= local.tier.network_bandwidth_gbps
      error_message = "The network of ${self.instance_type} is '${self.network_performance}', needed: ${local.tier.network_bandwidth_gbps} Gigabit."
    }

    postcondition {
      condition     = !local.tier.rocksdb_on_instance_store || coalesce(self.total_instance_storage, 0) >= local.tier.rocksdb_volume_gib * 1.074
      error_message = "${self.instance_type} has ${coalesce(self.total_instance_storage, 0)} GB of instance store, RocksDB needs ${local.tier.rocksdb_volume_gib} GiB; or set rocksdb_on_instance_store = false."
    }

    # RocksDB uses one disk, and a node with two would not know which.
    postcondition {
      condition     = !local.tier.rocksdb_on_instance_store || sum(concat([0], try([for disk in self.instance_disks : disk.count], []))) == 1
      error_message = "${self.instance_type} has ${sum(concat([0], try([for disk in self.instance_disks : disk.count], [])))} instance store disks, allowed: 1; take a smaller size of its family, or set rocksdb_on_instance_store = false."
    }

    postcondition {
      condition     = contains(self.supported_architectures, "x86_64")
      error_message = "${self.instance_type} is not x86_64, for which the artifacts are built."
    }
  }
}

data "aws_ec2_instance_type" "spot" {
  for_each = toset(var.taskmanager_spot_types)

  instance_type = each.key

  lifecycle {
    postcondition {
      condition     = self.memory_size >= local.taskmanager_needs_mib
      error_message = "taskmanager_spot_types: ${each.key} has ${self.memory_size} MiB; a TaskManager and its workers need ${ceil(local.taskmanager_needs_mib)} MiB."
    }

    postcondition {
      condition     = contains(self.supported_architectures, "x86_64") && contains(self.supported_usages_classes, "spot")
      error_message = "taskmanager_spot_types: ${each.key} is ${join(", ", self.supported_architectures)}, ${join(", ", self.supported_usages_classes)}; allowed: x86_64, spot."
    }

    postcondition {
      condition     = !local.tier.rocksdb_on_instance_store || (coalesce(self.total_instance_storage, 0) >= local.tier.rocksdb_volume_gib * 1.074 && sum(concat([0], try([for disk in self.instance_disks : disk.count], []))) == 1)
      error_message = "taskmanager_spot_types: ${each.key} has no single instance store disk of ${local.tier.rocksdb_volume_gib} GiB; or set rocksdb_on_instance_store = false."
    }
  }
}
