variable "role" {
  description = "Kind of the node"
  type        = string

  validation {
    condition     = contains(["zookeeper", "jobmanager", "taskmanager"], var.role)
    error_message = "role is '${var.role}', allowed: zookeeper, jobmanager, taskmanager."
  }
}

variable "service" {
  description = "systemd units to start when the node is prepared, separated by spaces"
  type        = string
}

variable "region" {
  description = "AWS region"
  type        = string
}

variable "packages" {
  description = "OS packages to install at first boot; empty where the image has them"
  type        = list(string)
}

variable "artifact_bucket" {
  description = "Bucket that artifacts are fetched from"
  type        = string
}

variable "artifacts" {
  description = "Archives (.tar.gz) by key, their SHA-256, and the directory they are unpacked to"
  type = list(object({
    key       = string
    sha256    = string
    directory = string
  }))

  validation {
    condition     = alltrue([for artifact in var.artifacts : can(regex("^[0-9a-f]{64}$", artifact.sha256))])
    error_message = "artifacts need a SHA-256 in hexadecimal each."
  }
}

variable "volumes" {
  description = "Volumes to format when empty and to mount: device (may be a glob that fits one device), mount point, XFS label"
  type = list(object({
    device = string
    mount  = string
    label  = string
  }))

  validation {
    condition     = alltrue([for volume in var.volumes : length(volume.label) <= 12])
    error_message = "XFS labels have 12 characters at most."
  }
}

variable "files" {
  description = "Further files by path; those with null content are left out"
  type = map(object({
    content = string
    mode    = optional(string, "0644")
  }))
}

variable "tls_parameter" {
  description = "SSM parameter of the internal TLS key pair; null for a node without"
  type        = string
}

variable "zookeeper_parameters" {
  description = "Path of the SSM parameters with the passwords of ZooKeeper's users"
  type        = string
}

variable "kms_key_arn" {
  description = "Key that the node encrypts parameters with that it makes; null for a node that makes none"
  type        = string
}

variable "group_name" {
  description = "Auto Scaling group that is told when the node has registered; null for a node without a group"
  type        = string
}
