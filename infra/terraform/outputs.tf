output "bucket_names" {
  description = "Buckets by kind: checkpoints, savepoints, artifacts"
  value       = local.bucket_names
}

output "zookeeper_quorum" {
  description = "HOST:PORT of the ZooKeeper nodes"
  value       = module.zookeeper.quorum
}

output "vpc_id" {
  description = "VPC of the cluster, its own or that of vpc_id, to peer with"
  value       = module.network.vpc_id
}

output "private_subnet_ids" {
  description = "Subnets of the nodes, one a zone"
  value       = module.network.private_subnet_ids
}

output "private_route_table_ids" {
  description = "Their route tables, for a route to a peered VPC each; empty without vpc_endpoints"
  value       = module.network.private_route_table_ids
}

output "kms_key_arn" {
  description = "Key of the cluster"
  value       = local.kms_key_arn
}

output "role_arns" {
  description = "Roles by node kind, to be named by policies of other resources"
  value       = module.iam.role_arns
}

output "security_group_ids" {
  description = "Security groups by node kind, to be named by Kafka's or the user API's ingress rules"
  value       = module.network.security_group_ids
}

output "bootstrap_servers" {
  description = "Kafka that the job reads from"
  value       = var.create_kafka ? module.kafka[0].bootstrap_servers : var.kafka_bootstrap_servers
}

output "alarm_topic_arn" {
  description = "SNS topic of the alarms: subscribe whoever is on call"
  value       = module.observability.alarm_topic_arn
}

output "prometheus_endpoint" {
  description = "Amazon Managed Service for Prometheus with the job's metrics and alerts, to query; null without cloudwatch_agent"
  value       = try(module.observability.prometheus.endpoint, null)
}

output "tls_parameter_name" {
  description = "SSM parameter of the internal TLS key pair; the first JobManager makes it, destroy leaves it"
  value       = local.tls_parameter_name
}

output "zookeeper_parameter_names" {
  description = "SSM parameters with the passwords of ZooKeeper's users; the first ZooKeeper node makes them, destroy leaves them"
  value       = [for user in ["jobmanager", "taskmanager"] : "${local.zookeeper_parameters}/${user}"]
}

output "tunnel_command" {
  description = "Shell command that opens Flink's REST API and web UI on http://localhost:8081, or on port $FLINK_PORT"
  value = join(" ", [
    "aws ssm start-session --region ${local.region}",
    "--target $(aws ec2 describe-instances --region ${local.region} --filters Name=tag:Name,Values=${var.name}-jobmanager Name=instance-state-name,Values=running --query Reservations[0].Instances[0].InstanceId --output text)",
    "--document-name AWS-StartPortForwardingSession --parameters portNumber=8081,localPortNumber=$${FLINK_PORT:-8081}",
  ])
}

output "submit_flags" {
  description = "Flags of `event-trigger` that belong to this cluster; rules, topics and the user API are yours"
  value = concat([
    "--runner=FlinkRunner",
    "--flink_master=localhost:8081",
    "--bootstrap_servers=${var.create_kafka ? module.kafka[0].bootstrap_servers : var.kafka_bootstrap_servers}",
    "--parallelism=${local.parallelism}",
    "--max_parallelism=${local.tier.max_parallelism}",
    "--user_shards=${local.tier.user_shards}",
    "--workers_per_task_manager=${var.task_slots}",
    "--state_cache_mb=${var.python_worker_memory_mib - 512 > 256 ? var.python_worker_memory_mib - 512 : 256}",
    "--checkpointing_interval_ms=${var.checkpointing_interval_s * 1000}",
    "--worker_command=/opt/event-trigger/bin/event-trigger-worker",
    "--detached",
  ], var.create_kafka ? ["--kafka_security=SASL_SSL", "--kafka_sasl_mechanism=AWS_MSK_IAM"] : [])
}

output "tier" {
  description = "The numbers in force: the tier's with what was overridden"
  value       = merge(local.tier, { task_slots = var.task_slots, slots = local.slots, max_slots = local.max_slots, parallelism = local.parallelism })
}

output "machines" {
  description = "Instance types of Flink's nodes and what EC2 says they have"
  value = {
    for kind, type in { jobmanager = data.aws_ec2_instance_type.jobmanager, taskmanager = data.aws_ec2_instance_type.taskmanager } : kind => {
      instance_type                = type.instance_type
      vcpus                        = type.default_vcpus
      memory_mib                   = type.memory_size
      network                      = type.network_performance
      instance_storage_gb          = type.total_instance_storage
    }
  }
}

output "node_groups" {
  description = "Auto Scaling groups: name and sizes"
  value       = { jobmanager = module.jobmanager.group, taskmanager = module.taskmanager.group }
}

output "launch_templates" {
  description = "Launch templates of the groups: disks, metadata options and network interfaces, for tests and audits"
  value       = { jobmanager = module.jobmanager.launch_template, taskmanager = module.taskmanager.launch_template }
}

output "ingress_rules" {
  description = "Every ingress rule of every node, for tests and audits"
  value       = module.network.ingress_rules
}

output "user_data" {
  description = "Rendered cloud-config by node kind, for tests and audits; holds no secret"
  value = {
    zookeeper   = module.zookeeper.user_data
    jobmanager  = module.jobmanager.user_data
    taskmanager = module.taskmanager.user_data
  }
}
