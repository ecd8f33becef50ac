# Alarms on machines, dashboard and the topic that alarms go to. Metrics come from the CloudWatch agent on each node: what
# Flink's Prometheus reporter shows, with the cluster as only dimension, and the fill of each mount point. Alarms on the job
# are in prometheus.tf; only that there is none is here, too, in case that nothing reaches Prometheus.

data "aws_region" "current" {}

locals {
  flink = { cluster = var.name }

  # Names as in Prometheus.
  metrics = {
    completed_checkpoints = "flink_jobmanager_job_numberOfCompletedCheckpoints"
    failed_checkpoints    = "flink_jobmanager_job_numberOfFailedCheckpoints"
    checkpoint_duration   = "flink_jobmanager_job_lastCheckpointDuration"
    checkpoint_size       = "flink_jobmanager_job_lastCheckpointSize"
    restarts              = "flink_jobmanager_job_numRestarts"
    running_jobs          = "flink_jobmanager_numRunningJobs"
    task_managers         = "flink_jobmanager_numRegisteredTaskManagers"
    lag                   = "flink_taskmanager_job_task_operator_KafkaSourceReader_KafkaConsumer_records_lag_max"
    records_in            = "flink_taskmanager_job_task_operator_numRecordsInPerSecond"
    backpressure          = "flink_taskmanager_job_task_backPressuredTimeMsPerSecond"
    heap                  = "flink_taskmanager_Status_JVM_Memory_Heap_Used"
    busy                  = "event_trigger_worker_cpu_percent"
  }

  # What is wrong when the value, the maximum of a period over all nodes, compares so with the threshold.
  threshold_alarms = {
    job-not-running = {
      description = "No job is running, or nothing is reported"
      runbook     = "jobnotrunning"
      metric      = local.metrics.running_jobs
      comparison  = "LessThanThreshold"
      threshold   = 1
      period      = 60
      periods     = 5
      missing     = "breaching"
    }
    taskmanagers-missing = {
      description = "Fewer TaskManagers have registered than the group's minimum"
      runbook     = "taskmanagerlost"
      metric      = local.metrics.task_managers
      comparison  = "LessThanThreshold"
      threshold   = var.taskmanager_min_count
      period      = 60
      periods     = 10
      missing     = "breaching"
    }
  }

  mounts = ["/data/rocksdb", "/data/zookeeper", "/tmp", "/var/log/flink", "/"]
}

resource "aws_cloudwatch_log_group" "this" {
  name              = var.log_group_name
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_cloudwatch_metric_alarm" "threshold" {
  for_each = local.threshold_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.description} (docs/runbook.md#${each.value.runbook})"
  namespace           = var.metrics_namespace
  metric_name         = each.value.metric
  dimensions          = local.flink
  statistic           = "Maximum"
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "disk" {
  for_each = toset(local.mounts)

  alarm_name          = "${var.name}-disk${replace(each.key, "/", "-")}"
  alarm_description   = "${each.key} of some node is more than ${var.max_disk_percent} % full (docs/runbook.md#diskfull)"
  namespace           = var.metrics_namespace
  metric_name         = "disk_used_percent"
  dimensions          = { path = each.key }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.max_disk_percent
  treat_missing_data  = "missing"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The leading JobManager counts each savepoint that it takes by its timer.
resource "aws_cloudwatch_metric_alarm" "savepoint" {
  count = var.savepoint_interval_hours == null ? 0 : 1

  alarm_name          = "${var.name}-savepoint-missing"
  alarm_description   = "No savepoint was taken for two intervals of ${var.savepoint_interval_hours} h (docs/runbook.md#savepointmissing)"
  namespace           = var.metrics_namespace
  metric_name         = "savepoints_taken"
  statistic           = "Sum"
  period              = var.savepoint_interval_hours * 3600
  evaluation_periods  = 2
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# S3 has no size to set. That a bucket outgrows what was planned is worth a look, not a limit.
resource "aws_cloudwatch_metric_alarm" "bucket" {
  for_each = var.bucket_plan_gib

  alarm_name          = "${var.name}-${each.key}-size"
  alarm_description   = "Bucket of ${each.key} holds more than the ${each.value} GiB planned (docs/runbook.md#bucketlarge)"
  namespace           = "AWS/S3"
  metric_name         = "BucketSizeBytes"
  dimensions          = { BucketName = var.bucket_names[each.key], StorageType = "StandardStorage" }
  statistic           = "Average"
  period              = 86400
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value * 1024 * 1024 * 1024
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "zookeeper" {
  count = 3

  alarm_name          = "${var.name}-zookeeper-${count.index + 1}"
  alarm_description   = "ZooKeeper node ${count.index + 1} fails EC2's status checks (docs/runbook.md#zookeeperdown)"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { InstanceId = var.zookeeper_instance_ids[count.index] }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

locals {
  widgets = [
    { title = "Events in per second, of every operator", metrics = ["records_in"], stat = "Sum" },
    { title = "Kafka lag of the worst partition [records]", metrics = ["lag"], stat = "Maximum" },
    { title = "Backpressured time of the worst task [ms/s]", metrics = ["backpressure"], stat = "Maximum" },
    { title = "Last checkpoint [ms]", metrics = ["checkpoint_duration"], stat = "Maximum" },
    { title = "Last checkpoint [bytes]", metrics = ["checkpoint_size"], stat = "Maximum" },
    { title = "Checkpoints", metrics = ["completed_checkpoints", "failed_checkpoints"], stat = "Maximum" },
    { title = "Restarts, jobs, TaskManagers", metrics = ["restarts", "running_jobs", "task_managers"], stat = "Maximum" },
    { title = "JVM heap of the fullest TaskManager [bytes]", metrics = ["heap"], stat = "Maximum" },
    { title = "CPU of Python workers, mean [% of a core]", metrics = ["busy"], stat = "Average" },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = concat(
      [for index, widget in local.widgets : {
        type   = "metric"
        x      = (index % 3) * 8
        y      = floor(index / 3) * 6
        width  = 8
        height = 6
        properties = {
          title   = widget.title
          region  = data.aws_region.current.name
          stat    = widget.stat
          period  = 60
          metrics = [for key in widget.metrics : [var.metrics_namespace, local.metrics[key], "cluster", var.name]]
        }
      }],
      [{
        type   = "metric"
        x      = 16
        y      = 12
        width  = 8
        height = 6
        properties = {
          title   = "Fullest disk by mount point [%]"
          region  = data.aws_region.current.name
          stat    = "Maximum"
          period  = 60
          metrics = [for mount in local.mounts : [var.metrics_namespace, "disk_used_percent", "path", mount]]
        }
      }],
    )
  })
}
