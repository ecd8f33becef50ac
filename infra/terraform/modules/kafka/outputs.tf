output "bootstrap_servers" {
  description = "HOST:PORT,… for clients with IAM authentication"
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_iam
}

output "security_group_id" {
  description = "Security group of the brokers"
  value       = aws_security_group.this.id
}

output "client_statements" {
  description = "What a Flink node may do: its topics, groups and transactions on this cluster"
  value = [
    {
      sid       = "KafkaCluster"
      actions   = ["kafka-cluster:Connect", "kafka-cluster:DescribeCluster", "kafka-cluster:WriteDataIdempotently"]
      resources = ["${local.arn_prefix}:cluster/${local.names}"]
    },
    {
      # Whether brokers create topics themselves, and their longest transaction: workers and launches ask.
      sid       = "KafkaSettings"
      actions   = ["kafka-cluster:DescribeClusterDynamicConfiguration", "kafka-cluster:DescribeTopicDynamicConfiguration"]
      resources = ["${local.arn_prefix}:cluster/${local.names}", "${local.arn_prefix}:topic/${local.names}"]
    },
    {
      sid       = "KafkaTopics"
      actions   = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData", "kafka-cluster:WriteData"]
      resources = ["${local.arn_prefix}:topic/${local.names}"]
    },
    {
      sid = "KafkaGroupsAndTransactions"
      actions = [
        "kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup", "kafka-cluster:AlterTransactionalId",
        "kafka-cluster:DescribeTransactionalId",
      ]
      resources = ["${local.arn_prefix}:group/${local.names}", "${local.arn_prefix}:transactional-id/${local.names}"]
    },
  ]
}

output "operator_statements" {
  description = "What a JobManager may do besides, for an operator's session there: create topics"
  value = [
    {
      sid       = "KafkaCreateTopics"
      actions   = ["kafka-cluster:CreateTopic"]
      resources = ["${local.arn_prefix}:topic/${local.names}"]
    },
  ]
}
