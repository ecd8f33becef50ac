variable "name" {
  description = "Name of the cluster; roles are NAME-KIND"
  type        = string
}

variable "bucket_arns" {
  description = "Buckets of the cluster [ARN]"
  type = object({
    checkpoints = string
    savepoints  = string
    artifacts   = string
  })
}

variable "artifact_prefix" {
  description = "Prefix of the artifact bucket that nodes may read"
  type        = string
}

variable "state_prefix" {
  description = "Prefix of the checkpoint and savepoint buckets that Flink may use"
  type        = string
}

variable "kms_key_arn" {
  description = "Key of buckets and parameters"
  type        = string
}

variable "tls_parameter_name" {
  description = "SSM parameter of the internal TLS key pair, with a leading slash"
  type        = string
}

variable "log_group_name" {
  description = "CloudWatch log group that nodes write to"
  type        = string
}

variable "metrics_namespace" {
  description = "CloudWatch namespace that nodes write to"
  type        = string
}

variable "msk_statements" {
  description = "What Flink nodes may do on an MSK cluster with IAM authentication; empty for any other Kafka"
  type = list(object({
    sid       = string
    actions   = list(string)
    resources = list(string)
  }))
}

variable "secret_arns" {
  description = "Secrets that Python workers on TaskManagers may read"
  type        = set(string)
}

variable "zookeeper_parameters" {
  description = "Path of the SSM parameters with the passwords of ZooKeeper's users, which ZooKeeper's nodes make"
  type        = string
}

variable "prometheus_arns" {
  description = "Workspaces of Amazon Managed Service for Prometheus that Flink's nodes write to"
  type        = list(string)
}

variable "msk_operator_statements" {
  description = "What JobManagers may do besides on the MSK cluster, for operators' sessions"
  type        = list(object({ sid = string, actions = list(string), resources = list(string) }))
}
