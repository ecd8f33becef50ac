variable "name" {
  description = "Name of the cluster; alarms are NAME-WHAT"
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the alarm topic"
  type        = string
}

variable "metrics_namespace" {
  description = "CloudWatch namespace that nodes write to"
  type        = string
}

variable "taskmanager_min_count" {
  description = "Fewest TaskManagers that are normal [instances]"
  type        = number
}

variable "max_disk_percent" {
  description = "Fill of a mount point beyond which there is an alarm [%]"
  type        = number
}

variable "bucket_plan_gib" {
  description = "Planned size of buckets by kind [GiB]"
  type        = map(number)
}

variable "bucket_names" {
  description = "Buckets by kind"
  type        = map(string)
}

variable "zookeeper_instance_ids" {
  description = "The three ZooKeeper instances"
  type        = list(string)
}

variable "log_group_name" {
  description = "Log group that nodes write to"
  type        = string
}

variable "log_retention_days" {
  description = "How long logs are kept [days]"
  type        = number
}

variable "monthly_budget_usd" {
  description = "Cost of the cluster a month; null for no budget [USD]"
  type        = number
}

variable "alert_rules" {
  description = "Prometheus' alerts on the job, YAML; null for none"
  type        = string
}

variable "savepoint_interval_hours" {
  description = "Time between savepoints by the timer; null for none [hours]"
  type        = number
}
