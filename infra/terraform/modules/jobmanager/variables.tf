variable "name" {
  description = "Name of the cluster; instances are NAME-KIND"
  type        = string
}

variable "region" {
  description = "AWS region"
  type        = string
}

variable "ami_id" {
  description = "Machine image, x86_64"
  type        = string
}

variable "instance_type" {
  description = "EC2 instance type"
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets"
  type        = list(string)
}

variable "security_group_id" {
  description = "Security group of the nodes"
  type        = string
}

variable "instance_profile_name" {
  description = "Instance profile of the nodes"
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the volumes and of the internal TLS parameter"
  type        = string
}

variable "root_volume_gib" {
  description = "Root volume [GiB]"
  type        = number
}

variable "tmp_volume_gib" {
  description = "Volume of /tmp [GiB]"
  type        = number
}

variable "log_volume_gib" {
  description = "Volume of /var/log/flink [GiB]"
  type        = number
}

variable "boot" {
  description = "What every node boots with: OS packages, artifacts, Flink settings, CloudWatch agent configuration (null: no agent)"
  type = object({
    packages             = list(string)
    artifact_bucket      = string
    tls_parameter        = string
    zookeeper_parameters = string
    flink_config         = string
    log4j                = string
    cloudwatch_config    = string
    prometheus_config    = string
    artifacts = map(object({
      key       = string
      sha256    = string
      directory = string
    }))
  })
}

variable "standby_count" {
  description = "JobManagers that stand by for the leader [instances]"
  type        = number
}

variable "refresh_alarms" {
  description = "Alarms that end and undo a roll-out"
  type        = list(string)
}

variable "savepoints" {
  description = "Savepoints by a timer: how often, how long they stay, and where they are counted; null for none"
  type = object({
    interval_hours    = number
    retention_days    = number
    metrics_port      = number
    metrics_namespace = string
  })
}
