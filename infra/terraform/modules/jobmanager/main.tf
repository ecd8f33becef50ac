# JobManagers: one leads, the others stand by; ZooKeeper elects. A group of them, so that a lost one is replaced. The leader
# takes savepoints by a timer, with the program that TaskManagers have, too.

locals {
  savepoint_files = var.savepoints == null ? {} : {
    "/etc/systemd/system/event-trigger-savepoint.service" = { content = file("${path.module}/files/event-trigger-savepoint.service") }
    "/etc/systemd/system/event-trigger-savepoint.timer" = {
      content = templatefile("${path.module}/templates/event-trigger-savepoint.timer.tftpl", { interval_hours = var.savepoints.interval_hours })
    }
    "/usr/local/sbin/event-trigger-savepoint" = {
      content = templatefile("${path.module}/templates/savepoint.sh.tftpl", {
        metrics_port      = var.savepoints.metrics_port
        metrics_namespace = var.savepoints.metrics_namespace
        retention_days    = var.savepoints.retention_days
        timeout_s         = 3600
      })
      mode = "0755"
    }
  }
}

module "bootstrap" {
  source = "../bootstrap"

  role            = "jobmanager"
  service         = "flink-jobmanager.service event-trigger-registered.service${var.savepoints == null ? "" : " event-trigger-savepoint.timer"}"
  region          = var.region
  packages        = var.boot.packages
  artifact_bucket = var.boot.artifact_bucket
  artifacts       = [var.boot.artifacts.flink, var.boot.artifacts.python]
  tls_parameter   = var.boot.tls_parameter
  group_name      = "${var.name}-jobmanager"
  kms_key_arn     = var.kms_key_arn

  zookeeper_parameters = var.boot.zookeeper_parameters

  volumes = [
    { device = "/dev/sdg", mount = "/tmp", label = "tmp" },
    { device = "/dev/sdh", mount = "/var/log/flink", label = "log" },
  ]

  files = merge(local.savepoint_files, {
    "/etc/flink/cluster.yaml"                      = { content = var.boot.flink_config }
    "/etc/flink/log4j.properties"                  = { content = var.boot.log4j }
    "/etc/systemd/system/flink-jobmanager.service" = { content = file("${path.module}/files/flink-jobmanager.service") }
    "/etc/event-trigger/cloudwatch-metrics.json"   = { content = var.boot.cloudwatch_config }
    "/etc/event-trigger/prometheus.yaml"           = { content = var.boot.prometheus_config }
  })
}

resource "aws_launch_template" "this" {
  name                   = "${var.name}-jobmanager"
  description            = "JobManagers of ${var.name}"
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
    for_each = {
      "/dev/xvda" = var.root_volume_gib
      "/dev/sdg"  = var.tmp_volume_gib
      "/dev/sdh"  = var.log_volume_gib
    }

    content {
      device_name = block_device_mappings.key

      ebs {
        volume_type           = "gp3"
        volume_size           = block_device_mappings.value
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
      tags          = { Name = "${var.name}-jobmanager", Cluster = var.name }
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                = "${var.name}-jobmanager"
  vpc_zone_identifier = var.subnet_ids
  desired_capacity    = 1 + var.standby_count
  min_size            = 1 + var.standby_count
  max_size            = 1 + var.standby_count + 1
  health_check_type   = "EC2"
  # As long as the hook below waits for a node.
  wait_for_capacity_timeout = "30m"

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  # One at a time; a new one is up before an old one goes.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 200
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
    value               = "${var.name}-jobmanager"
    propagate_at_launch = true
  }

  tag {
    key                 = "Cluster"
    value               = var.name
    propagate_at_launch = true
  }
}

# event-trigger-registered.service on the node answers it. A roll-out waits for that; a node that never registers is replaced.
resource "aws_autoscaling_lifecycle_hook" "registered" {
  name                   = "registered"
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_LAUNCHING"
  heartbeat_timeout      = 1800
  default_result         = "ABANDON"
}
