variable "name" {
  description = "Name of the cluster, the prefix of everything in it"
  type        = string
}

variable "cidr" {
  description = "IPv4 range of the VPC, a /16 to /20"
  type        = string
}

variable "existing" {
  description = "A VPC that exists, and three of its subnets with their ranges, zones and route tables, in the same order; null: one is made"
  type = object({
    vpc_id          = string
    cidr            = string
    subnet_ids      = list(string)
    subnet_cidrs    = list(string)
    zones           = list(string)
    route_table_ids = list(string)
  })
}

variable "endpoints" {
  description = "Whether to make endpoints of AWS's services; a VPC that exists may have them"
  type        = bool
}

variable "nat_gateway_count" {
  description = "NAT gateways: 0 (nodes reach AWS through endpoints only), 1, or 3 (one a zone)"
  type        = number
}

variable "bucket_arns" {
  description = "Buckets that nodes may reach through the S3 endpoint [ARN]"
  type        = list(string)
}

variable "ports" {
  description = "Flink's fixed ports [TCP port]"
  type = object({
    jobmanager_rpc   = number
    blob_server      = number
    taskmanager_rpc  = number
    taskmanager_data = number
    metrics_query    = number
    prometheus       = number
  })
}

variable "egress" {
  description = "What nodes may call besides the cluster and AWS: Kafka, the user API, webhooks"
  type = map(object({
    description       = string
    from              = set(string)
    port              = number
    security_group_id = optional(string)
    prefix_list_id    = optional(string)
    cidr_ipv4         = optional(string)
  }))
}

variable "prometheus_security_group_id" {
  description = "Security group of a Prometheus server that scrapes the nodes; null for none"
  type        = string
}

variable "secrets_manager" {
  description = "Whether nodes call AWS Secrets Manager"
  type        = bool
}

variable "prometheus" {
  description = "Whether nodes write to Amazon Managed Service for Prometheus"
  type        = bool
}

variable "log_group_name" {
  description = "The cluster's log group; connections are logged in a group below it"
  type        = string
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the log of connections [days]"
  type        = number
}

variable "kms_key_arn" {
  description = "Key of the log of connections"
  type        = string
}
