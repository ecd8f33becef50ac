# What the job does alarms by the rules that every cluster of ours has, runners/flink/monitoring/alerts.yml, evaluated by
# Amazon Managed Service for Prometheus. Each node's CloudWatch agent scrapes that node and writes there.

resource "aws_prometheus_workspace" "this" {
  count = var.alert_rules == null ? 0 : 1

  alias       = var.name
  kms_key_arn = var.kms_key_arn

  tags = { Name = var.name }
}

resource "aws_prometheus_rule_group_namespace" "this" {
  count = var.alert_rules == null ? 0 : 1

  name         = "event-trigger"
  workspace_id = aws_prometheus_workspace.this[0].id
  data         = var.alert_rules
}

resource "aws_prometheus_alert_manager_definition" "this" {
  count = var.alert_rules == null ? 0 : 1

  workspace_id = aws_prometheus_workspace.this[0].id

  definition = yamlencode({
    alertmanager_config = yamlencode({
      route = {
        receiver        = "alarms"
        group_by        = ["alertname", "job_name"]
        group_wait      = "30s"
        group_interval  = "5m"
        repeat_interval = "4h"
      }
      receivers = [{
        name = "alarms"
        sns_configs = [{
          topic_arn     = aws_sns_topic.alarms.arn
          sigv4         = { region = data.aws_region.current.name }
          send_resolved = true
        }]
      }]
    })
  })

  depends_on = [aws_sns_topic_policy.alarms]
}
