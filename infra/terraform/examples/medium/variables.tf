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

variable "kafka_bootstrap_servers" {
  description = "HOST:PORT,… of your Kafka"
  type        = string
}

variable "kafka_security_group_id" {
  description = "Security group of its brokers"
  type        = string
}

variable "kafka_port" {
  description = "TCP port of its brokers"
  type        = number
  default     = 9094
}
