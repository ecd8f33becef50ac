output "alarm_topic_arn" {
  description = "SNS topic of the alarms: subscribe whoever is on call"
  value       = aws_sns_topic.alarms.arn
}

output "flink_metrics" {
  description = "Flink metrics that nodes have to send"
  value       = values(local.metrics)
}
