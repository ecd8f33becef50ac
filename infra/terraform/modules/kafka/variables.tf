variable "name" {
  description = "Name of the MSK cluster"
  type        = string
}

variable "vpc_id" {
  description = "VPC of the brokers"
  type        = string
}

variable "subnet_ids" {
  description = "Three private subnets, a broker in each"
  type        = list(string)
}

variable "client_security_group_ids" {
  description = "Security groups of Kafka's clients, by what they are"
  type        = map(string)
}

variable "kms_key_arn" {
  description = "Key of the brokers' volumes and logs"
  type        = string
}

variable "kafka_version" {
  description = "Kafka version as MSK names it"
  type        = string
}

variable "broker_instance_type" {
  description = "MSK instance type of a broker"
  type        = string
}

variable "broker_count" {
  description = "Brokers, a multiple of the zones [brokers]"
  type        = number
}

variable "broker_volume_gib" {
  description = "First volume of a broker [GiB]"
  type        = number
}

variable "partitions" {
  description = "Partitions of a topic that is made without a number [partitions]"
  type        = number
}

variable "log_group_name" {
  description = "The cluster's log group; brokers log to a group below it"
  type        = string
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the brokers' logs [days]"
  type        = number
}
