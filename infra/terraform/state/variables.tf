variable "name" {
  description = "Name of the cluster that the state belongs to; buckets are NAME-KIND-ACCOUNT, the key is alias/NAME"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,29}[a-z0-9]$", var.name))
    error_message = "name is '${var.name}', allowed: 3 to 31 lower-case letters, digits and dashes, a letter first."
  }
}

variable "region" {
  description = "AWS region, the cluster's"
  type        = string
}

variable "checkpoint_noncurrent_version_days" {
  description = "How long checkpoints that Flink deleted can be restored [days]"
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.checkpoint_noncurrent_version_days >= 1 && var.checkpoint_noncurrent_version_days <= 365 && floor(var.checkpoint_noncurrent_version_days) == var.checkpoint_noncurrent_version_days
    error_message = "checkpoint_noncurrent_version_days is ${var.checkpoint_noncurrent_version_days}, allowed: whole numbers from 1 to 365."
  }
}

variable "noncurrent_version_days" {
  description = "How long savepoints, HA metadata and artifacts that were deleted or overwritten can be restored [days]"
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.noncurrent_version_days >= 1 && var.noncurrent_version_days <= 365 && floor(var.noncurrent_version_days) == var.noncurrent_version_days
    error_message = "noncurrent_version_days is ${var.noncurrent_version_days}, allowed: whole numbers from 1 to 365."
  }
}

variable "attach_deny_insecure_transport_policy" {
  description = "Attach the bucket policy that denies plain HTTP; only S3 emulators that ignore its condition need false"
  type        = bool
  default     = true
  nullable    = false
}

variable "access_log_days" {
  description = "How long it is kept who read or wrote which object [days]"
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.access_log_days >= 1 && var.access_log_days <= 3653 && floor(var.access_log_days) == var.access_log_days
    error_message = "access_log_days is ${var.access_log_days}, allowed: whole numbers from 1 to 3653."
  }
}

variable "replica_region" {
  description = "Another region that savepoints are copied to; null for none"
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null ? true : var.replica_region != var.region && can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.replica_region))
    error_message = "replica_region is '${coalesce(var.replica_region, "-")}', allowed: a region other than ${var.region}, as eu-west-1."
  }
}
