# TaskManagers: a group of equal nodes. One that goes is drained by a hook, one that is lost is replaced.

locals {
  group_name = "${var.name}-taskmanager"
  hook_name  = "drain"

  # Instance store where the instance has it, otherwise a gp3 volume.
  rocksdb_device = var.rocksdb_on_instance_store ? "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_*" : "/dev/sdf"

  ebs_volumes = merge(
    {
      "/dev/xvda" = { gib = var.root_volume_gib, iops = 3000, throughput = 125 }
      "/dev/sdg"  = { gib = var.tmp_volume_gib, iops = 3000, throughput = 125 }
      "/dev/sdh"  = { gib = var.log_volume_gib, iops = 3000, throughput = 125 }
    },
    var.rocksdb_on_instance_store ? {} : {
      "/dev/sdf" = { gib = var.rocksdb_volume_gib, iops = var.rocksdb_volume_iops, throughput = var.rocksdb_volume_throughput }
    },
  )
}

module "bootstrap" {
  source = "../bootstrap"

  role            = "taskmanager"
  service         = "flink-taskmanager.service flink-drain.service event-trigger-registered.service"
  region          = var.region
  packages        = var.boot.packages
  artifact_bucket = var.boot.artifact_bucket
  artifacts       = [var.boot.artifacts.flink, var.boot.artifacts.python]
  tls_parameter   = var.boot.tls_parameter
  group_name      = local.group_name
  kms_key_arn     = null

  zookeeper_parameters = var.boot.zookeeper_parameters

  volumes = [
    { device = local.rocksdb_device, mount = "/data/rocksdb", label = "rocksdb" },
    { device = "/dev/sdg", mount = "/tmp", label = "tmp" },
    { device = "/dev/sdh", mount = "/var/log/flink", label = "log" },
  ]

  files = {
    "/etc/flink/cluster.yaml"                         = { content = var.boot.flink_config }
    "/etc/flink/log4j.properties"                     = { content = var.boot.log4j }
    "/etc/systemd/system/flink-taskmanager.service"   = { content = file("${path.module}/files/flink-taskmanager.service") }
    "/etc/systemd/system/flink-drain.service"         = { content = file("${path.module}/files/flink-drain.service") }
    "/etc/systemd/system/event-trigger-worker.socket" = { content = file("${path.module}/files/event-trigger-worker.socket") }
    "/etc/systemd/system/event-trigger-worker@.service" = {
      content = templatefile("${path.module}/templates/event-trigger-worker@.service.tftpl", { workers_use_aws = var.workers_use_aws })
    }
    "/usr/local/sbin/event-trigger-drain" = {
      content = templatefile("${path.module}/templates/drain.sh.tftpl", { group_name = local.group_name, hook_name = local.hook_name })
      mode    = "0755"
    }
    "/etc/logrotate.d/event-trigger-workers"     = { content = file("${path.module}/files/logrotate.conf") }
    "/etc/event-trigger/cloudwatch-metrics.json" = { content = var.boot.cloudwatch_config }
    "/etc/event-trigger/prometheus.yaml"         = { content = var.boot.prometheus_config }
  }
}

resource "aws_launch_template" "this" {
  name                   = "${var.name}-taskmanager"
  description            = "TaskManagers of ${var.name}"
  image_id               = var.ami_id
  instance_type          = var.instance_type
  user_data              = module.bootstrap.user_data_base64
  update_default_version = true
  ebs_optimized          = true

  iam_instance_profile {
    name = var.instance_profile_name
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [var.security_group_id]
  }

  dynamic "block_device_mappings" {
    for_each = local.ebs_volumes

    content {
      device_name = block_device_mappings.key

      ebs {
        volume_type           = "gp3"
        volume_size           = block_device_mappings.value.gib
        iops                  = block_device_mappings.value.iops
        throughput            = block_device_mappings.value.throughput
        encrypted             = true
        kms_key_id            = var.kms_key_arn
        delete_on_termination = true
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])

    content {
      resource_type = tag_specifications.key
      tags          = { Name = local.group_name, Cluster = var.name }
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                = local.group_name
  vpc_zone_identifier = var.subnet_ids
  desired_capacity    = var.scaling == null ? var.instance_count : null # with a policy it is Auto Scaling's
  min_size            = var.min_count
  max_size            = var.max_count
  health_check_type   = "EC2"
  # As long as the hook below waits for a node.
  wait_for_capacity_timeout = "30m"
  # Moving instances to balance zones would restart the job for nothing.
  suspended_processes = ["AZRebalance"]

  dynamic "launch_template" {
    for_each = var.on_demand_count == null ? [1] : []

    content {
      id      = aws_launch_template.this.id
      version = aws_launch_template.this.latest_version
    }
  }

  dynamic "mixed_instances_policy" {
    for_each = var.on_demand_count == null ? [] : [1]

    content {
      launch_template {
        launch_template_specification {
          launch_template_id = aws_launch_template.this.id
          version            = aws_launch_template.this.latest_version
        }

        dynamic "override" {
          for_each = concat([var.instance_type], var.spot_types)

          content {
            instance_type = override.value
          }
        }
      }

      instances_distribution {
        on_demand_allocation_strategy            = "prioritized" # in the order above
        on_demand_base_capacity                  = var.on_demand_count
        on_demand_percentage_above_base_capacity = 0
        spot_allocation_strategy                 = "price-capacity-optimized"
      }
    }
  }

  # New nodes are up before old ones go, so that the job finds slots to move to.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
      instance_warmup        = 180
      auto_rollback          = true

      dynamic "alarm_specification" {
        for_each = length(var.refresh_alarms) > 0 ? [var.refresh_alarms] : []

        content {
          alarms = alarm_specification.value
        }
      }
    }
  }

  tag {
    key                 = "Name"
    value               = local.group_name
    propagate_at_launch = true
  }

  tag {
    key                 = "Cluster"
    value               = var.name
    propagate_at_launch = true
  }

  lifecycle {
    precondition {
      condition     = var.min_count <= var.max_count && (var.scaling != null || (var.min_count <= var.instance_count && var.instance_count <= var.max_count))
      error_message = "TaskManagers: ${var.instance_count} is not between ${var.min_count} and ${var.max_count}."
    }
  }
}

# flink-drain.service on the node answers it.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = local.hook_name
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.drain_timeout_s
  default_result         = "CONTINUE"
}

# event-trigger-registered.service on the node answers it. A roll-out waits for that; a node that never registers is replaced.
resource "aws_autoscaling_lifecycle_hook" "registered" {
  name                   = "registered"
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_LAUNCHING"
  heartbeat_timeout      = 1800
  default_result         = "ABANDON"
}
