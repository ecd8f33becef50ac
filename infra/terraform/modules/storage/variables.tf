variable "name" {
  description = "Name of the cluster; bucket names are NAME-KIND-ACCOUNT"
  type        = string
}

variable "deletion_protection" {
  description = "Buckets with content cannot be destroyed, and the key is kept for 30 days instead of 7"
  type        = bool
}

variable "noncurrent_version_days" {
  description = "How long what Flink deleted or overwrote can be restored [days]"
  type        = number
}

variable "attach_deny_insecure_transport_policy" {
  description = "Attach the bucket policy that denies plain HTTP"
  type        = bool
}
