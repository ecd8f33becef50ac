# A Flink session cluster on EC2: ZooKeeper for election, JobManagers, TaskManagers with Python workers, state on S3.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

locals {
  region = data.aws_region.current.name

  state_prefix      = var.name
  artifact_prefix   = "releases"
  metrics_namespace = "EventTrigger/${var.name}"
  log_group_name    = "/event-trigger/${var.name}"
  # A password for each of ZooKeeper's users below it.
  zookeeper_parameters = "/event-trigger/${var.name}/zookeeper"
  tls_parameter_name   = "/event-trigger/${var.name}/internal-tls/${var.internal_tls_generation}"

  # Written by `make release`: the archives with their SHA-256.
  release = jsondecode(file("${var.release_dir}/manifest.json"))

  artifacts = {
    for name, directory in { flink = "/opt/flink", python = "/opt/event-trigger", zookeeper = "/opt/zookeeper" } : name => {
      key                          = "${local.artifact_prefix}/${local.release[name].file}"
      sha256                       = local.release[name].sha256
      directory                    = directory
    }
  }

  kafka_egress = var.create_kafka ? {
    kafka = {
      description       = "MSK brokers"
      from              = toset(["jobmanager", "taskmanager"]) # the source's enumerator runs in the JobManager
      port              = 9098
      security_group_id = module.kafka[0].security_group_id
      prefix_list_id    = null
      cidr_ipv4         = null
    }
  } : {}

  boot = {
    packages        = concat(var.os_packages, var.cloudwatch_agent ? ["amazon-cloudwatch-agent"] : [])
    artifact_bucket = local.bucket_names.artifacts
    artifacts       = local.artifacts
  }

  flink_boot = { for role in ["jobmanager", "taskmanager"] : role => merge(local.boot, {
    tls_parameter        = local.tls_parameter_name
    zookeeper_parameters = local.zookeeper_parameters
    flink_config         = local.flink_config[role]
    log4j                = file("${path.module}/files/log4j.properties")
    cloudwatch_config    = var.cloudwatch_agent ? local.cloudwatch_config_flink : null
    prometheus_config    = var.cloudwatch_agent ? local.prometheus_config : null
  }) }

  # ZooKeeper keeps its three zones, so that its quorum outlives one.
  flink_subnet_ids = var.single_zone ? slice(module.network.private_subnet_ids, 0, 1) : module.network.private_subnet_ids

  # What a roll-out is undone for. Alarms on the job are not among them: it may be stopped during an upgrade.
  refresh_alarms = var.cloudwatch_agent ? ["${var.name}-taskmanagers-missing"] : []
}

resource "aws_s3_object" "artifact" {
  for_each = local.artifacts

  bucket = local.bucket_names.artifacts
  key    = each.value.key
  source = "${var.release_dir}/${local.release[each.key].file}"
  # File names carry the content's hash: another content is another object.
  source_hash = each.value.sha256

  # A node that starts during an upgrade finds what its launch template names.
  lifecycle {
    create_before_destroy = true
  }
}

module "network" {
  source = "./modules/network"

  name                         = var.name
  cidr                         = var.vpc_cidr
  existing                     = local.existing
  endpoints                    = var.vpc_endpoints
  nat_gateway_count            = var.nat_gateway_count
  bucket_arns                  = values(local.bucket_arns)
  ports                        = local.ports
  egress                       = merge(var.egress, local.kafka_egress)
  prometheus_security_group_id = var.prometheus_security_group_id
  secrets_manager              = length(var.secret_arns) > 0
  prometheus                   = var.cloudwatch_agent
  log_group_name               = local.log_group_name
  log_retention_days           = var.log_retention_days
  kms_key_arn                  = local.kms_key_arn
}

module "iam" {
  source = "./modules/iam"

  name                 = var.name
  bucket_arns          = local.bucket_arns
  artifact_prefix      = local.artifact_prefix
  state_prefix         = local.state_prefix
  kms_key_arn          = local.kms_key_arn
  tls_parameter_name   = local.tls_parameter_name
  zookeeper_parameters = local.zookeeper_parameters
  log_group_name       = local.log_group_name
  metrics_namespace    = local.metrics_namespace
  secret_arns          = var.secret_arns
  msk_statements       = var.create_kafka ? module.kafka[0].client_statements : []
  prometheus_arns      = var.cloudwatch_agent ? [module.observability.prometheus.arn] : []

  msk_operator_statements = var.create_kafka ? module.kafka[0].operator_statements : []
}

module "zookeeper" {
  source = "./modules/zookeeper"

  name                  = var.name
  region                = local.region
  ami_id                = var.ami_id
  instance_type         = var.zookeeper_instance_type
  heap_mib              = var.zookeeper_heap_mib
  root_volume_gib       = var.root_volume_gib
  data_volume_gib       = var.zookeeper_volume_gib
  subnet_ids            = module.network.private_subnet_ids
  subnet_cidrs          = module.network.private_subnet_cidrs
  zones                 = module.network.zones
  security_group_id     = module.network.security_group_ids.zookeeper
  instance_profile_name = module.iam.instance_profile_names.zookeeper
  kms_key_arn           = local.kms_key_arn
  host_number           = var.zookeeper_host_number
  deletion_protection   = var.deletion_protection
  zookeeper_parameters  = local.zookeeper_parameters

  boot = merge(local.boot, { cloudwatch_config = var.cloudwatch_agent ? local.cloudwatch_config_zookeeper : null })

  # A node that boots finds its release, its routes and endpoints, and its rights.
  depends_on = [aws_s3_object.artifact, module.network, module.iam]
}

module "jobmanager" {
  source = "./modules/jobmanager"

  name                  = var.name
  region                = local.region
  ami_id                = var.ami_id
  instance_type         = data.aws_ec2_instance_type.jobmanager.instance_type
  standby_count         = local.tier.jobmanager_standby_count
  subnet_ids            = local.flink_subnet_ids
  security_group_id     = module.network.security_group_ids.jobmanager
  instance_profile_name = module.iam.instance_profile_names.jobmanager
  kms_key_arn           = local.kms_key_arn
  root_volume_gib       = var.root_volume_gib
  tmp_volume_gib        = var.tmp_volume_gib
  log_volume_gib        = var.log_volume_gib
  refresh_alarms        = local.refresh_alarms

  savepoints = var.savepoint_interval_hours == null ? null : {
    interval_hours    = var.savepoint_interval_hours
    retention_days    = var.savepoint_retention_days
    metrics_port      = local.ports.prometheus
    metrics_namespace = local.metrics_namespace
  }

  boot = local.flink_boot.jobmanager

  # A node that boots finds its release, its routes and endpoints, and its rights.
  depends_on = [aws_s3_object.artifact, module.network, module.iam]
}

module "taskmanager" {
  source = "./modules/taskmanager"

  name                      = var.name
  region                    = local.region
  ami_id                    = var.ami_id
  instance_type             = data.aws_ec2_instance_type.taskmanager.instance_type
  instance_count            = local.tier.taskmanager_count
  min_count                 = local.tier.taskmanager_min_count
  max_count                 = local.tier.taskmanager_max_count
  drain_timeout_s           = var.drain_timeout_s
  subnet_ids                = local.flink_subnet_ids
  security_group_id         = module.network.security_group_ids.taskmanager
  instance_profile_name     = module.iam.instance_profile_names.taskmanager
  kms_key_arn               = local.kms_key_arn
  root_volume_gib           = var.root_volume_gib
  tmp_volume_gib            = var.tmp_volume_gib
  log_volume_gib            = var.log_volume_gib
  workers_use_aws           = length(var.secret_arns) > 0 || var.create_kafka
  rocksdb_on_instance_store = local.tier.rocksdb_on_instance_store
  rocksdb_volume_gib        = local.tier.rocksdb_volume_gib
  rocksdb_volume_iops       = var.rocksdb_volume_iops
  rocksdb_volume_throughput = var.rocksdb_volume_throughput
  refresh_alarms            = local.refresh_alarms
  on_demand_count           = var.taskmanager_on_demand_count
  spot_types                = keys(data.aws_ec2_instance_type.spot)

  scaling = !var.elastic ? null : {
    metrics_namespace = local.metrics_namespace
    busy_metric       = module.observability.metric_names.busy
    lag_metric        = module.observability.metric_names.lag
    max_lag           = local.tier.scale_out_lag
  }

  boot = local.flink_boot.taskmanager

  # A node that boots finds its release, its routes and endpoints, and its rights.
  depends_on = [aws_s3_object.artifact, module.network, module.iam]
}

module "kafka" {
  source = "./modules/kafka"
  count  = var.create_kafka ? 1 : 0

  name                 = var.name
  vpc_id               = module.network.vpc_id
  subnet_ids           = module.network.private_subnet_ids
  kms_key_arn          = local.kms_key_arn
  kafka_version        = var.kafka_version
  broker_instance_type = local.tier.kafka_broker_instance_type
  broker_count         = local.tier.kafka_broker_count
  broker_volume_gib    = local.tier.kafka_broker_volume_gib
  partitions           = local.tier.kafka_partitions
  log_group_name       = local.log_group_name
  log_retention_days   = var.log_retention_days

  client_security_group_ids = {
    jobmanager  = module.network.security_group_ids.jobmanager
    taskmanager = module.network.security_group_ids.taskmanager
  }
}

module "observability" {
  source = "./modules/observability"

  name                     = var.name
  kms_key_arn              = local.kms_key_arn
  metrics_namespace        = local.metrics_namespace
  log_group_name           = local.log_group_name
  log_retention_days       = var.log_retention_days
  taskmanager_min_count    = local.tier.taskmanager_min_count
  max_disk_percent         = var.max_disk_percent
  bucket_names             = local.bucket_names
  monthly_budget_usd       = var.monthly_budget_usd
  zookeeper_instance_ids   = module.zookeeper.instance_ids
  savepoint_interval_hours = var.savepoint_interval_hours
  alert_rules              = var.cloudwatch_agent ? local.alert_rules : null

  bucket_plan_gib = {
    checkpoints = local.tier.checkpoint_storage_gib + local.tier.deleted_checkpoint_gib
    savepoints  = local.tier.savepoint_storage_gib
  }
}
