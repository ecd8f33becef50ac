variable "region" {
  description = "AWS region"
  type        = string
}

variable "name" {
  description = "Name of the cluster, that of its state (infra/terraform/state)"
  type        = string
}

variable "ami_id" {
  description = "Machine image of the nodes, Amazon Linux 2023, x86_64; another one rolls them"
  type        = string
}

variable "release_dir" {
  description = "Folder that `make release` wrote"
  type        = string
  default     = "../../../../build/release"
}

variable "vpc_id" {
  description = "A VPC that exists, with subnet_ids; null: the cluster has one of its own, to be peered"
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Three private subnets of vpc_id, each in another zone"
  type        = list(string)
  default     = []
}

variable "kafka_bootstrap_servers" {
  description = "HOST:PORT,… of your Kafka"
  type        = string
}

variable "kafka_security_group_id" {
  description = "Security group of its brokers, in the same VPC or in one that is peered in the same region; null with kafka_cidrs"
  type        = string
  default     = null

  validation {
    condition     = var.kafka_security_group_id != null || length(var.kafka_cidrs) > 0
    error_message = "Give kafka_security_group_id or kafka_cidrs: without one of them no node reaches Kafka."
  }
}

variable "kafka_cidrs" {
  description = "IPv4 ranges of its brokers, where a security group cannot be named"
  type        = set(string)
  default     = []
}

variable "kafka_port" {
  description = "TCP port of its brokers"
  type        = number
  default     = 9094
}
