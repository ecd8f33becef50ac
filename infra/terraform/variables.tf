variable "name" {
  description = "Name of the cluster: prefix of every resource, bucket and path"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,29}[a-z0-9]$", var.name))
    error_message = "name is '${var.name}', allowed: 3 to 31 lower-case letters, digits and dashes, a letter first."
  }
}

variable "tier" {
  description = "Size that all defaults come from: small, medium or large"
  type        = string

  validation {
    condition     = contains(["small", "medium", "large"], var.tier)
    error_message = "tier is '${var.tier}', allowed: small, medium, large."
  }
}

variable "release_dir" {
  description = "Folder that `make release` wrote: manifest.json and the archives it names"
  type        = string

  validation {
    condition     = fileexists("${var.release_dir}/manifest.json")
    error_message = "release_dir: there is no ${var.release_dir}/manifest.json; run make release."
  }
}

variable "deletion_protection" {
  description = "ZooKeeper nodes cannot be terminated by API or console, and their volumes leave a snapshot; it does not stop Terraform"
  type        = bool
  default     = true
  nullable    = false
}

################################################################################
# JobManager
################################################################################

variable "jobmanager_instance_type" {
  description = "EC2 instance type of JobManagers; default: the tier's"
  type        = string
  default     = null

  validation {
    condition     = var.jobmanager_instance_type == null ? true : can(regex("^[a-z0-9-]+\\.[a-z0-9]+$", var.jobmanager_instance_type))
    error_message = "jobmanager_instance_type is no EC2 instance type; an example: m6i.2xlarge."
  }
}

variable "jobmanager_standby_count" {
  description = "JobManagers that stand by for the leader [instances]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.jobmanager_standby_count == null ? true : var.jobmanager_standby_count >= 0 && var.jobmanager_standby_count <= 2 && floor(var.jobmanager_standby_count) == var.jobmanager_standby_count
    error_message = "jobmanager_standby_count is out of range, allowed: whole numbers from 0 to 2."
  }
}

variable "jobmanager_memory_mib" {
  description = "jobmanager.memory.process.size [MiB]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.jobmanager_memory_mib == null ? true : var.jobmanager_memory_mib >= 1024 && var.jobmanager_memory_mib <= 65536 && floor(var.jobmanager_memory_mib) == var.jobmanager_memory_mib
    error_message = "jobmanager_memory_mib is out of range, allowed: whole numbers from 1024 to 65536."
  }
}

################################################################################
# TaskManagers
################################################################################

variable "taskmanager_instance_type" {
  description = "EC2 instance type of TaskManagers; default: the tier's"
  type        = string
  default     = null

  validation {
    condition     = var.taskmanager_instance_type == null ? true : can(regex("^[a-z0-9-]+\\.[a-z0-9]+$", var.taskmanager_instance_type))
    error_message = "taskmanager_instance_type is no EC2 instance type; an example: m6i.2xlarge."
  }
}

variable "taskmanager_count" {
  description = "TaskManagers wanted [instances]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.taskmanager_count == null ? true : var.taskmanager_count >= 1 && var.taskmanager_count <= 500 && floor(var.taskmanager_count) == var.taskmanager_count
    error_message = "taskmanager_count is out of range, allowed: whole numbers from 1 to 500."
  }
}

variable "taskmanager_min_count" {
  description = "Fewest TaskManagers [instances]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.taskmanager_min_count == null ? true : var.taskmanager_min_count >= 1 && var.taskmanager_min_count <= 500 && floor(var.taskmanager_min_count) == var.taskmanager_min_count
    error_message = "taskmanager_min_count is out of range, allowed: whole numbers from 1 to 500."
  }
}

variable "taskmanager_max_count" {
  description = "Most TaskManagers [instances]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.taskmanager_max_count == null ? true : var.taskmanager_max_count >= 1 && var.taskmanager_max_count <= 500 && floor(var.taskmanager_max_count) == var.taskmanager_max_count
    error_message = "taskmanager_max_count is out of range, allowed: whole numbers from 1 to 500."
  }
}

variable "elastic" {
  description = "TaskManagers follow the load, from taskmanager_min_count (2 or more) to taskmanager_max_count: Auto Scaling changes their number by workers' CPU and lag"
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.elastic || local.tier.taskmanager_min_count >= 2
    error_message = "elastic: taskmanager_min_count is ${local.tier.taskmanager_min_count}, allowed: 2 or more. One TaskManager is all or nothing."
  }

  validation {
    condition     = !var.elastic || var.cloudwatch_agent
    error_message = "elastic: cloudwatch_agent is false, but the CloudWatch agent sends the metrics that the number follows."
  }
}

variable "taskmanager_on_demand_count" {
  description = "TaskManagers that are on demand; those beyond are spot instances, which AWS may take back within two minutes [instances]; null: none is a spot instance"
  type        = number
  default     = null

  validation {
    condition     = var.taskmanager_on_demand_count == null ? true : var.taskmanager_on_demand_count >= 0 && var.taskmanager_on_demand_count <= 500 && floor(var.taskmanager_on_demand_count) == var.taskmanager_on_demand_count
    error_message = "taskmanager_on_demand_count is out of range, allowed: whole numbers from 0 to 500."
  }
}

variable "taskmanager_spot_types" {
  description = "Further instance types of spot TaskManagers, on which one fits as on taskmanager_instance_type: the more, the less often AWS has none"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.taskmanager_spot_types) == 0 || var.taskmanager_on_demand_count != null
    error_message = "taskmanager_spot_types: without taskmanager_on_demand_count there is no spot instance."
  }
}

variable "scale_out_lag" {
  description = "Records of one partition that wait in Kafka, from which more TaskManagers start if workers are busy, with elastic [records]; default: the tier's, two minutes of its load"
  type        = number
  default     = null

  validation {
    condition     = var.scale_out_lag == null ? true : var.scale_out_lag >= 1 && floor(var.scale_out_lag) == var.scale_out_lag
    error_message = "scale_out_lag is out of range, allowed: whole numbers from 1."
  }
}

variable "taskmanager_memory_mib" {
  description = "taskmanager.memory.process.size [MiB]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.taskmanager_memory_mib == null ? true : var.taskmanager_memory_mib >= 1728 && var.taskmanager_memory_mib <= 524288 && floor(var.taskmanager_memory_mib) == var.taskmanager_memory_mib
    error_message = "taskmanager_memory_mib is out of range, allowed: whole numbers from 1728 to 524288."
  }
}

variable "task_slots" {
  description = "Task slots of a TaskManager, each with a Python worker [slots]"
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.task_slots >= 1 && var.task_slots <= 64 && floor(var.task_slots) == var.task_slots
    error_message = "task_slots is ${var.task_slots}, allowed: whole numbers from 1 to 64."
  }
}

variable "python_worker_memory_mib" {
  description = "Memory of a Python worker: --state_cache_mb (1024) and 512 for the interpreter [MiB]"
  type        = number
  default     = 1536
  nullable    = false

  validation {
    condition     = var.python_worker_memory_mib >= 512 && var.python_worker_memory_mib <= 65536 && floor(var.python_worker_memory_mib) == var.python_worker_memory_mib
    error_message = "python_worker_memory_mib is ${var.python_worker_memory_mib}, allowed: whole numbers from 512 to 65536."
  }
}

variable "managed_memory_fraction" {
  description = "taskmanager.memory.managed.fraction, RocksDB's [fraction of Flink's memory]"
  type        = number
  default     = 0.4
  nullable    = false

  validation {
    condition     = var.managed_memory_fraction >= 0.1 && var.managed_memory_fraction <= 0.8
    error_message = "managed_memory_fraction is ${var.managed_memory_fraction}, allowed: numbers from 0.1 to 0.8."
  }
}

variable "network_memory_fraction" {
  description = "taskmanager.memory.network.fraction, shuffle buffers' [fraction of Flink's memory]"
  type        = number
  default     = 0.1
  nullable    = false

  validation {
    condition     = var.network_memory_fraction + var.managed_memory_fraction <= 0.9
    error_message = "managed_memory_fraction and network_memory_fraction leave nothing for the heap: ${var.managed_memory_fraction} + ${var.network_memory_fraction}, allowed: 0.9 together."
  }

  validation {
    condition     = var.network_memory_fraction >= 0.05 && var.network_memory_fraction <= 0.5
    error_message = "network_memory_fraction is ${var.network_memory_fraction}, allowed: numbers from 0.05 to 0.5."
  }
}

variable "network_bandwidth_gbps" {
  description = "Network that a TaskManager's instance type must have [Gbit/s]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.network_bandwidth_gbps == null ? true : var.network_bandwidth_gbps >= 1 && var.network_bandwidth_gbps <= 200 && floor(var.network_bandwidth_gbps) == var.network_bandwidth_gbps
    error_message = "network_bandwidth_gbps is out of range, allowed: whole numbers from 1 to 200."
  }
}

variable "drain_timeout_s" {
  description = "How long Auto Scaling waits for a TaskManager to stop in order [s]"
  type        = number
  default     = 120
  nullable    = false

  validation {
    condition     = var.drain_timeout_s >= 30 && var.drain_timeout_s <= 7200 && floor(var.drain_timeout_s) == var.drain_timeout_s
    error_message = "drain_timeout_s is ${var.drain_timeout_s}, allowed: whole numbers from 30 to 7200."
  }
}

################################################################################
# Job
################################################################################

variable "parallelism" {
  description = "Parallelism of the job; at most task_slots times taskmanager_max_count [slots]; default: all slots of the wanted TaskManagers, with elastic of the most"
  type        = number
  default     = null

  validation {
    condition     = var.parallelism == null ? true : var.parallelism <= local.max_slots
    error_message = "parallelism is more than the ${local.max_slots} slots of all TaskManagers."
  }

  validation {
    condition     = var.parallelism == null ? true : var.parallelism >= 1 && var.parallelism <= 32768 && floor(var.parallelism) == var.parallelism
    error_message = "parallelism is out of range, allowed: whole numbers from 1 to 32768."
  }
}

variable "user_shards" {
  description = "User shards of the job, fixed for the life of its state; at least 4 for each slot there may ever be [shards]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.user_shards == null ? true : var.user_shards >= 1 && var.user_shards <= 32768 && floor(var.user_shards) == var.user_shards
    error_message = "user_shards is out of range, allowed: whole numbers from 1 to 32768."
  }
}

variable "max_parallelism" {
  description = "Key groups of the job, fixed for the life of its state [key groups]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.max_parallelism == null ? true : var.max_parallelism >= 1 && var.max_parallelism <= 32768 && floor(var.max_parallelism) == var.max_parallelism
    error_message = "max_parallelism is out of range, allowed: whole numbers from 1 to 32768."
  }
}

variable "kafka_partitions" {
  description = "Partitions of the events topic [partitions]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.kafka_partitions == null ? true : var.kafka_partitions >= 1 && var.kafka_partitions <= 10000 && floor(var.kafka_partitions) == var.kafka_partitions
    error_message = "kafka_partitions is out of range, allowed: whole numbers from 1 to 10000."
  }
}

variable "checkpointing_interval_s" {
  description = "Time between checkpoints [s]"
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.checkpointing_interval_s >= 1 && var.checkpointing_interval_s <= 3600 && floor(var.checkpointing_interval_s) == var.checkpointing_interval_s
    error_message = "checkpointing_interval_s is ${var.checkpointing_interval_s}, allowed: whole numbers from 1 to 3600."
  }
}

variable "flink_settings" {
  description = "Further Flink settings, or others than this module's, by key"
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.flink_settings) : can(regex("^[A-Za-z0-9.-]+$", key))])
    error_message = "flink_settings: keys consist of letters, digits, dots and dashes."
  }

  validation {
    condition     = !anytrue([for key in keys(var.flink_settings) : startswith(key, "security.ssl.internal.") || startswith(key, "rest.")])
    error_message = "flink_settings: security.ssl.internal.* and rest.* are not for changing: internal TLS stays on, REST on the loopback."
  }

  validation {
    condition     = !anytrue([for key in keys(var.flink_settings) : can(regex("(?i)(password|secret|access[.-]?key)", key))])
    error_message = "flink_settings: no passwords or keys; nodes have their instance roles."
  }
}

################################################################################
# Disks and buckets
################################################################################

variable "rocksdb_on_instance_store" {
  description = "RocksDB on the instance's own NVMe disk instead of a gp3 volume; default: the tier's"
  type        = bool
  default     = null
}

variable "rocksdb_volume_gib" {
  description = "Volume of /data/rocksdb [GiB]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.rocksdb_volume_gib == null ? true : var.rocksdb_volume_gib >= 10 && var.rocksdb_volume_gib <= 16384 && floor(var.rocksdb_volume_gib) == var.rocksdb_volume_gib
    error_message = "rocksdb_volume_gib is out of range, allowed: whole numbers from 10 to 16384."
  }
}

variable "rocksdb_volume_iops" {
  description = "Operations per second of that volume, where it is gp3 [1/s]"
  type        = number
  default     = 6000
  nullable    = false

  validation {
    condition     = var.rocksdb_volume_iops >= 3000 && var.rocksdb_volume_iops <= 16000 && floor(var.rocksdb_volume_iops) == var.rocksdb_volume_iops
    error_message = "rocksdb_volume_iops is ${var.rocksdb_volume_iops}, allowed: whole numbers from 3000 to 16000."
  }
}

variable "rocksdb_volume_throughput" {
  description = "Throughput of that volume, where it is gp3 [MiB/s]"
  type        = number
  default     = 250
  nullable    = false

  validation {
    condition     = var.rocksdb_volume_throughput >= 125 && var.rocksdb_volume_throughput <= 1000 && floor(var.rocksdb_volume_throughput) == var.rocksdb_volume_throughput
    error_message = "rocksdb_volume_throughput is ${var.rocksdb_volume_throughput}, allowed: whole numbers from 125 to 1000."
  }
}

variable "tmp_volume_gib" {
  description = "Volume of /tmp on every Flink node [GiB]"
  type        = number
  default     = 50
  nullable    = false

  validation {
    condition     = var.tmp_volume_gib >= 10 && var.tmp_volume_gib <= 16384 && floor(var.tmp_volume_gib) == var.tmp_volume_gib
    error_message = "tmp_volume_gib is ${var.tmp_volume_gib}, allowed: whole numbers from 10 to 16384."
  }
}

variable "log_volume_gib" {
  description = "Volume of /var/log/flink on every Flink node [GiB]"
  type        = number
  default     = 100
  nullable    = false

  validation {
    condition     = var.log_volume_gib >= 10 && var.log_volume_gib <= 16384 && floor(var.log_volume_gib) == var.log_volume_gib
    error_message = "log_volume_gib is ${var.log_volume_gib}, allowed: whole numbers from 10 to 16384."
  }
}

variable "root_volume_gib" {
  description = "Root volume of every node [GiB]"
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.root_volume_gib >= 8 && var.root_volume_gib <= 16384 && floor(var.root_volume_gib) == var.root_volume_gib
    error_message = "root_volume_gib is ${var.root_volume_gib}, allowed: whole numbers from 8 to 16384."
  }
}

variable "checkpoint_storage_gib" {
  description = "Planned size of live checkpoints; more than that and the deleted ones that S3 keeps is an alarm [GiB]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.checkpoint_storage_gib == null ? true : var.checkpoint_storage_gib >= 1 && var.checkpoint_storage_gib <= 1000000 && floor(var.checkpoint_storage_gib) == var.checkpoint_storage_gib
    error_message = "checkpoint_storage_gib is out of range, allowed: whole numbers from 1 to 1000000."
  }
}

variable "savepoint_storage_gib" {
  description = "Planned size of the savepoint bucket; more is an alarm [GiB]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.savepoint_storage_gib == null ? true : var.savepoint_storage_gib >= 1 && var.savepoint_storage_gib <= 1000000 && floor(var.savepoint_storage_gib) == var.savepoint_storage_gib
    error_message = "savepoint_storage_gib is out of range, allowed: whole numbers from 1 to 1000000."
  }
}

################################################################################
# ZooKeeper
################################################################################

variable "zookeeper_instance_type" {
  description = "EC2 instance type of the three ZooKeeper nodes"
  type        = string
  default     = "t3.small"
  nullable    = false
}

variable "zookeeper_heap_mib" {
  description = "ZooKeeper's JVM heap [MiB]"
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = var.zookeeper_heap_mib >= 128 && var.zookeeper_heap_mib <= 65536 && floor(var.zookeeper_heap_mib) == var.zookeeper_heap_mib
    error_message = "zookeeper_heap_mib is ${var.zookeeper_heap_mib}, allowed: whole numbers from 128 to 65536."
  }
}

variable "zookeeper_volume_gib" {
  description = "Data volume of a ZooKeeper node [GiB]"
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.zookeeper_volume_gib >= 1 && var.zookeeper_volume_gib <= 1000 && floor(var.zookeeper_volume_gib) == var.zookeeper_volume_gib
    error_message = "zookeeper_volume_gib is ${var.zookeeper_volume_gib}, allowed: whole numbers from 1 to 1000."
  }
}

################################################################################
# Network
################################################################################

variable "vpc_id" {
  description = "A VPC that exists, with subnet_ids; null: the cluster has one of its own"
  type        = string
  default     = null

  validation {
    condition     = var.vpc_id == null ? true : can(regex("^vpc-[0-9a-f]{8,17}$", var.vpc_id))
    error_message = "vpc_id is no id of a VPC; an example: vpc-0123456789abcdef0."
  }
}

variable "subnet_ids" {
  description = "Its private subnets for the nodes: three, each in another zone and with an explicit route table"
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = contains([0, 3], length(var.subnet_ids)) && length(distinct(var.subnet_ids)) == length(var.subnet_ids)
    error_message = "subnet_ids has ${length(distinct(var.subnet_ids))} different subnets, allowed: three, or none for a VPC of the cluster's own."
  }

  validation {
    condition     = length(var.subnet_ids) > 0 || var.vpc_id == null
    error_message = "subnet_ids is missing: vpc_id is given, so name three of its subnets."
  }

  validation {
    condition     = length(var.subnet_ids) == 0 || var.nat_gateway_count == 0
    error_message = "nat_gateway_count is ${var.nat_gateway_count}, allowed with subnet_ids: 0. The ways out of a VPC that exists are its own."
  }
}

variable "vpc_endpoints" {
  description = "Make the endpoints through which nodes reach AWS; false in a VPC that has them, for ssm, ssmmessages, ec2messages, autoscaling, logs, monitoring, aps-workspaces, with secret_arns secretsmanager, and S3"
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = var.vpc_endpoints || length(var.subnet_ids) > 0
    error_message = "vpc_endpoints is false, allowed only with subnet_ids: a VPC of the cluster's own has no other way to AWS."
  }
}

variable "zookeeper_host_number" {
  description = "Number of the ZooKeeper node's address in each subnet, which has to be free in a VPC that exists"
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.zookeeper_host_number >= 4 && var.zookeeper_host_number <= 4090 && floor(var.zookeeper_host_number) == var.zookeeper_host_number
    error_message = "zookeeper_host_number is ${var.zookeeper_host_number}, allowed: whole numbers from 4 (AWS has those before) to 4090."
  }
}

variable "vpc_cidr" {
  description = "IPv4 range of the cluster's own VPC, a /16 to /20"
  type        = string
  default     = "10.60.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(16|17|18|19|20)$", var.vpc_cidr))
    error_message = "vpc_cidr is '${var.vpc_cidr}', allowed: an IPv4 range from /16 to /20."
  }
}

variable "single_zone" {
  description = "All JobManagers and TaskManagers in the first zone: no cost of traffic between them; a job stops while that zone is lost"
  type        = bool
  default     = false
  nullable    = false
}

variable "nat_gateway_count" {
  description = "NAT gateways: 0 (AWS through endpoints, nothing else), 1, or 3 (one a zone)"
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = contains([0, 1, 3], var.nat_gateway_count)
    error_message = "nat_gateway_count is ${var.nat_gateway_count}, allowed: 0, 1, 3."
  }
}

variable "egress" {
  description = "What nodes may call besides the cluster and AWS, by name: Kafka, the user API, webhooks. One of security_group_id, prefix_list_id and cidr_ipv4 each; from is a set of jobmanager, taskmanager"
  type = map(object({
    description       = string
    from              = set(string)
    port              = number
    security_group_id = optional(string)
    prefix_list_id    = optional(string)
    cidr_ipv4         = optional(string)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for rule in values(var.egress) : length(compact([rule.security_group_id, rule.prefix_list_id, rule.cidr_ipv4])) == 1])
    error_message = "egress: each rule names exactly one of security_group_id, prefix_list_id, cidr_ipv4."
  }

  validation {
    condition     = alltrue([for rule in values(var.egress) : length(rule.from) > 0 && length(setsubtract(rule.from, ["jobmanager", "taskmanager"])) == 0])
    error_message = "egress: from is a set of jobmanager and taskmanager."
  }

  validation {
    condition     = alltrue([for rule in values(var.egress) : rule.cidr_ipv4 != "0.0.0.0/0" || rule.port == 443])
    error_message = "egress: to everywhere only HTTPS, port 443."
  }
}

variable "secret_arns" {
  description = "Secrets in AWS Secrets Manager that rules' destinations refer to (aws-secret:ARN); TaskManagers may read them and no others. Without create_kafka the first one rolls TaskManagers, whose workers then get the node's credentials"
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.secret_arns : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+$", arn))])
    error_message = "secret_arns: whole ARNs of secrets, without wildcards, as arn:aws:secretsmanager:eu-central-1:123456789012:secret:name-AbCdEf."
  }
}

variable "prometheus_security_group_id" {
  description = "Security group of a Prometheus server that scrapes port 9249 of Flink's nodes; null for none"
  type        = string
  default     = null
}

################################################################################
# Kafka
################################################################################

variable "kafka_bootstrap_servers" {
  description = "HOST:PORT,… of your Kafka; null with create_kafka. egress has to let nodes reach it"
  type        = string
  default     = null

  validation {
    condition     = (var.kafka_bootstrap_servers == null) == var.create_kafka
    error_message = "Give either kafka_bootstrap_servers or create_kafka = true."
  }

  validation {
    condition     = var.kafka_bootstrap_servers == null ? true : alltrue([for one in split(",", var.kafka_bootstrap_servers) : can(regex("^[^:\\s]+:[0-9]+$", one))])
    error_message = "kafka_bootstrap_servers is '${coalesce(var.kafka_bootstrap_servers, "-")}', allowed: HOST:PORT,HOST:PORT."
  }
}

variable "create_kafka" {
  description = "Make an MSK cluster; the release then needs the MSK IAM jar (docs/infrastructure.md)"
  type        = bool
  default     = false
  nullable    = false
}

variable "kafka_version" {
  description = "Version of the MSK cluster, as MSK names it"
  type        = string
  default     = "3.8.x"
  nullable    = false
}

variable "kafka_broker_instance_type" {
  description = "MSK instance type of a broker; default: the tier's, from `event-trigger capacity`"
  type        = string
  default     = null
}

variable "kafka_broker_count" {
  description = "MSK brokers, the same number in each of three zones [brokers]; default: the tier's"
  type        = number
  default     = null

  validation {
    condition     = var.kafka_broker_count == null ? true : var.kafka_broker_count >= 3 && var.kafka_broker_count <= 30 && var.kafka_broker_count % 3 == 0
    error_message = "kafka_broker_count is out of range, allowed: multiples of 3 from 3 to 30."
  }
}

variable "kafka_broker_volume_gib" {
  description = "First volume of a broker; MSK enlarges it when it is 60 % full [GiB]; default: the tier's, a day of its load"
  type        = number
  default     = null

  validation {
    condition     = var.kafka_broker_volume_gib == null ? true : var.kafka_broker_volume_gib >= 1 && var.kafka_broker_volume_gib <= 16384 && floor(var.kafka_broker_volume_gib) == var.kafka_broker_volume_gib
    error_message = "kafka_broker_volume_gib is out of range, allowed: whole numbers from 1 to 16384."
  }
}

################################################################################
# Boot
################################################################################

variable "ami_id" {
  description = "Machine image, x86_64, with cloud-init, systemd and the AWS CLI, such as Amazon Linux 2023; another one rolls the nodes"
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id is '${var.ami_id}', allowed: the id of an image, as ami-0123456789abcdef0."
  }
}

variable "os_packages" {
  description = "OS packages that the image lacks: Java 17, Python 3.11, XFS tools; empty for an image with everything"
  type        = list(string)
  default     = ["java-17-amazon-corretto-headless", "python3.11", "xfsprogs", "logrotate"]
  nullable    = false
}

variable "cloudwatch_agent" {
  description = "Run the CloudWatch agent on the nodes; alarms and dashboard need what it sends. Without it there is no managed Prometheus either"
  type        = bool
  default     = true
  nullable    = false
}

variable "internal_tls_generation" {
  description = "Counter in the name of the internal TLS key pair; one more makes a new pair, and every node has to be replaced at once [number]"
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.internal_tls_generation >= 1 && var.internal_tls_generation <= 1000000 && floor(var.internal_tls_generation) == var.internal_tls_generation
    error_message = "internal_tls_generation is ${var.internal_tls_generation}, allowed: whole numbers from 1 to 1000000."
  }
}

################################################################################
# Savepoints
################################################################################

variable "savepoint_interval_hours" {
  description = "Time between savepoints that the leading JobManager takes; null for none [hours]"
  type        = number
  default     = 24

  validation {
    condition     = var.savepoint_interval_hours == null ? true : var.savepoint_interval_hours >= 1 && var.savepoint_interval_hours <= 24 && floor(var.savepoint_interval_hours) == var.savepoint_interval_hours
    error_message = "savepoint_interval_hours is out of range, allowed: whole numbers from 1 to 24."
  }
}

variable "savepoint_retention_days" {
  description = "Age from which savepoints are deleted, except for the newest three and those that a job started from [days]"
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.savepoint_retention_days >= 1 && var.savepoint_retention_days <= 365 && floor(var.savepoint_retention_days) == var.savepoint_retention_days
    error_message = "savepoint_retention_days is ${var.savepoint_retention_days}, allowed: whole numbers from 1 to 365."
  }
}

################################################################################
# Alarms
################################################################################

variable "max_disk_percent" {
  description = "Fill of a mount point beyond which there is an alarm [%]"
  type        = number
  default     = 80
  nullable    = false

  validation {
    condition     = var.max_disk_percent >= 10 && var.max_disk_percent <= 99 && floor(var.max_disk_percent) == var.max_disk_percent
    error_message = "max_disk_percent is ${var.max_disk_percent}, allowed: whole numbers from 10 to 99."
  }
}

variable "monthly_budget_usd" {
  description = "Cost of this cluster a month, by its tag, from 80 % of which the alarm topic is notified; null for no budget [USD]"
  type        = number
  default     = null

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd >= 1 && var.monthly_budget_usd <= 10000000
    error_message = "monthly_budget_usd is out of range, allowed: numbers from 1 to 10000000."
  }
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps logs; a number CloudWatch knows, as 14, 30 or 90 [days]"
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 3653 && floor(var.log_retention_days) == var.log_retention_days
    error_message = "log_retention_days is ${var.log_retention_days}, allowed: whole numbers from 1 to 3653."
  }
}
