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

variable "instance_count" {
  description = "TaskManagers wanted [instances]"
  type        = number
}

variable "min_count" {
  description = "Fewest TaskManagers [instances]"
  type        = number
}

variable "max_count" {
  description = "Most TaskManagers [instances]"
  type        = number
}

variable "rocksdb_on_instance_store" {
  description = "RocksDB on the instance's own NVMe disk instead of a gp3 volume"
  type        = bool
}

variable "rocksdb_volume_gib" {
  description = "Volume of /data/rocksdb where it is not the instance store [GiB]"
  type        = number
}

variable "rocksdb_volume_iops" {
  description = "Its operations per second [1/s]"
  type        = number
}

variable "rocksdb_volume_throughput" {
  description = "Its throughput [MiB/s]"
  type        = number
}

variable "workers_use_aws" {
  description = "Workers get the credentials of the node's role, for secrets of AWS and MSK"
  type        = bool
}

variable "drain_timeout_s" {
  description = "How long Auto Scaling waits for a TaskManager to stop in order [s]"
  type        = number
}

variable "refresh_alarms" {
  description = "Alarms that end and undo a roll-out"
  type        = list(string)
}

variable "on_demand_count" {
  description = "TaskManagers that are no spot instances; null: all [instances]"
  type        = number
}

variable "spot_types" {
  description = "Further instance types of spot instances"
  type        = list(string)
}

variable "scaling" {
  description = "What the number of TaskManagers follows: CloudWatch's namespace and metrics, and the lag of a partition from which there are too few [records]; null: nothing"
  type = object({
    metrics_namespace = string
    busy_metric       = string
    lag_metric        = string
    max_lag           = number
  })
}
