# Configuration of the CloudWatch agent: fill of disks and memory of every node; on Flink's nodes also their logs and what
# their Prometheus reporter shows. That goes to CloudWatch as far as its alarms and dashboard look at it, and to Prometheus.

locals {
  cloudwatch_metrics = {
    namespace = local.metrics_namespace
    # One value for a mount point over all nodes is what alarms look at; one per instance is for looking closer.
    append_dimensions      = { InstanceId = "$${aws:InstanceId}" }
    aggregation_dimensions = [["path"], []]
    metrics_collected = {
      disk = {
        measurement = ["used_percent"]
        resources   = ["/", "/tmp", "/data/rocksdb", "/data/zookeeper", "/var/log/flink"]
        drop_device = true
      }
      mem = { measurement = ["used_percent"] }
    }
  }

  cloudwatch_logs = {
    metrics_collected = {
      prometheus = {
        log_group_name         = local.log_group_name
        prometheus_config_path = "/etc/event-trigger/prometheus.yaml"
        emf_processor = {
          metric_namespace = local.metrics_namespace
          metric_declaration = [{
            source_labels    = ["job"]
            label_matcher    = "^flink$"
            dimensions       = [["cluster"]]
            metric_selectors = [for metric in module.observability.flink_metrics : "^${metric}$"]
          }]
        }
      }
    }
    logs_collected = {
      files = {
        collect_list = [{
          file_path       = "/var/log/flink/*.log"
          log_group_name  = local.log_group_name
          log_stream_name = "{instance_id}"
        }]
      }
    }
  }

  cloudwatch_metrics_flink = merge(local.cloudwatch_metrics, {
    metrics_destinations = { cloudwatch = {}, amp = { workspace_id = try(module.observability.prometheus.id, "") } }
    metrics_collected = merge(local.cloudwatch_metrics.metrics_collected, {
      prometheus = { prometheus_config_path = "/etc/event-trigger/prometheus.yaml" }
    })
  })

  cloudwatch_config_zookeeper = jsonencode({ metrics = local.cloudwatch_metrics })
  cloudwatch_config_flink     = jsonencode({ metrics = local.cloudwatch_metrics_flink, logs = local.cloudwatch_logs })

  alert_rules = file("${path.module}/files/alerts.yml")

  # Names and labels as alerts use them. Only what they and CloudWatch look at is sent, because each sample costs.
  relabeling     = yamldecode(file("${path.module}/files/prometheus.yml")).scrape_configs[0].metric_relabel_configs
  alert_metrics  = distinct(regexall("(?:flink|event_trigger)_\\w+", replace(local.alert_rules, "/(?m)^#.*$/", "")))
  wanted_metrics = distinct(concat(local.alert_metrics, module.observability.flink_metrics))

  prometheus_config = yamlencode({
    global = { scrape_interval = "1m" }
    scrape_configs = [{
      job_name = "flink"
      # The boot script puts the node's id in.
      static_configs = [{ targets = ["localhost:${local.ports.prometheus}"], labels = { cluster = var.name, instance = "INSTANCE-ID" } }]
      metric_relabel_configs = concat(local.relabeling, [{
        source_labels = ["__name__"]
        action        = "keep"
        regex         = join("|", local.wanted_metrics)
      }])
    }]
  })
}
