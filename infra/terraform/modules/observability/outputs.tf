output "alarm_topic_arn" {
  description = "SNS topic of the alarms: subscribe whoever is on call"
  value       = aws_sns_topic.alarms.arn
}

output "flink_metrics" {
  description = "Flink metrics that nodes have to send"
  value       = values(local.metrics)
}

output "metric_names" {
  description = "The same by what they are"
  value       = local.metrics
}

output "prometheus" {
  description = "Workspace of Amazon Managed Service for Prometheus: id, arn, query endpoint; null without alerts on the job"
  value = var.alert_rules == null ? null : {
    id       = aws_prometheus_workspace.this[0].id
    arn      = aws_prometheus_workspace.this[0].arn
    endpoint = aws_prometheus_workspace.this[0].prometheus_endpoint
  }
}
