# With elastic the group follows the load. Each change restarts the job from its last checkpoint, so alarms wait for what
# lasts, and no change leads to its opposite: infra/scaling.py simulates these numbers (docs/infrastructure.md#elastic).
# Instances that go are drained by the hook as any other; Flink's own drain, which would end the job, is never used.

locals {
  scaling_count = var.scaling == null ? 0 : 1

  out_percent = 85
  in_percent  = 55

  # Lag counts as long as workers are busy: more of them do not help a broker, or one user with half of the events.
  scaling_alarms = var.scaling == null ? {} : {
    busy   = { expression = "busy", comparison = "GreaterThanThreshold", threshold = local.out_percent, minutes = 5, policy = "out" }
    behind = { expression = "IF(busy > ${local.in_percent}, lag, 0)", comparison = "GreaterThanThreshold", threshold = var.scaling.max_lag, minutes = 5, policy = "out" }
    idle   = { expression = "IF(lag > ${var.scaling.max_lag}, 100, busy)", comparison = "LessThanThreshold", threshold = local.in_percent, minutes = 30, policy = "in" }
  }
}

# While its instances start and for ten minutes more it adds none, and nothing takes any away.
resource "aws_autoscaling_policy" "out" {
  count = local.scaling_count

  name                      = "${local.group_name}-out"
  autoscaling_group_name    = aws_autoscaling_group.this.name
  policy_type               = "StepScaling"
  adjustment_type           = "PercentChangeInCapacity"
  min_adjustment_magnitude  = 1
  metric_aggregation_type   = "Average"
  estimated_instance_warmup = 600

  step_adjustment {
    scaling_adjustment          = 34
    metric_interval_lower_bound = 0
  }
}

# Simple, because only such a policy waits between one change and the next.
resource "aws_autoscaling_policy" "in" {
  count = local.scaling_count

  name                     = "${local.group_name}-in"
  autoscaling_group_name   = aws_autoscaling_group.this.name
  policy_type              = "SimpleScaling"
  adjustment_type          = "PercentChangeInCapacity"
  min_adjustment_magnitude = 1
  scaling_adjustment       = -25
  cooldown                 = 1800
}

resource "aws_cloudwatch_metric_alarm" "scaling" {
  for_each = local.scaling_alarms

  alarm_name          = "${local.group_name}-${each.key}"
  alarm_description   = "Changes the number of TaskManagers; nobody has to do anything (docs/infrastructure.md#elastic)"
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.minutes
  # A job that does not run says nothing about how many it takes.
  treat_missing_data = "notBreaching"
  alarm_actions      = [each.value.policy == "out" ? aws_autoscaling_policy.out[0].arn : aws_autoscaling_policy.in[0].arn]

  metric_query {
    id          = "value"
    expression  = each.value.expression
    label       = each.key
    return_data = true
  }

  metric_query {
    id = "busy"

    metric {
      namespace   = var.scaling.metrics_namespace
      metric_name = var.scaling.busy_metric
      dimensions  = { cluster = var.name }
      stat        = "Average"
      period      = 60
    }
  }

  metric_query {
    id = "lag"

    metric {
      namespace   = var.scaling.metrics_namespace
      metric_name = var.scaling.lag_metric
      dimensions  = { cluster = var.name }
      stat        = "Maximum"
      period      = 60
    }
  }
}
