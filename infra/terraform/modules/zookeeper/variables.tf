variable "name" {
  description = "Name of the cluster; instances are NAME-zookeeper-N"
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

variable "heap_mib" {
  description = "ZooKeeper's JVM heap [MiB]"
  type        = number
}

variable "root_volume_gib" {
  description = "Root volume [GiB]"
  type        = number
}

variable "data_volume_gib" {
  description = "Data volume [GiB]"
  type        = number
}

variable "subnet_ids" {
  description = "Three private subnets"
  type        = list(string)
}

variable "subnet_cidrs" {
  description = "Their IPv4 ranges, in the same order"
  type        = list(string)
}

variable "zones" {
  description = "Their availability zones, in the same order"
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

variable "zookeeper_parameters" {
  description = "Path of the SSM parameters with the passwords of ZooKeeper's users"
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the volumes and of these parameters"
  type        = string
}

variable "deletion_protection" {
  description = "Instances cannot be terminated through the API, and a destroyed data volume leaves a snapshot"
  type        = bool
}

variable "boot" {
  description = "What every node boots with: OS packages, artifacts and CloudWatch agent configuration (null: no agent)"
  type = object({
    packages          = list(string)
    artifact_bucket   = string
    cloudwatch_config = string
    artifacts = map(object({
      key       = string
      sha256    = string
      directory = string
    }))
  })
}

variable "host_number" {
  description = "Number of a node's address in its subnet; AWS keeps the first four"
  type        = number
}
