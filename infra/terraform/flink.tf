# Flink's settings that belong to this cluster, the same for all its nodes. What holds everywhere (state backend,
# checkpointing, restarts) comes with the release as conf/base.yaml, made from runners/flink/configuration.py, so that it
# is written once; a node adds its address, id and TLS store when it boots. The first of a key counts: node, this, base.
#
# All of this is user data, so a change of it replaces nodes. What a launch can carry (parallelism, time between
# checkpoints) is in submit_flags instead.

locals {
  # Flink chooses free ports by default; security groups want fixed ones.
  ports = {
    jobmanager_rpc   = 6123
    blob_server      = 6124
    taskmanager_rpc  = 6122
    taskmanager_data = 6121
    metrics_query    = 6125
    prometheus       = 9249
  }

  flink_settings = {
    # Who leads, and where the running jobs are found after a JobManager was lost.
    "high-availability.type"                = "zookeeper"
    "high-availability.cluster-id"          = "/${var.name}"
    "high-availability.zookeeper.quorum"    = module.zookeeper.quorum
    "high-availability.zookeeper.path.root" = "/event-trigger" # not /flink, which everybody could write in older clusters
    # Nodes log in (/etc/flink/jaas.conf); JobManagers write, TaskManagers read.
    "high-availability.zookeeper.client.acl" = "creator"
    "high-availability.storageDir"           = "s3://${local.bucket_names.checkpoints}/${local.state_prefix}/ha"

    # State. The regional endpoint, because only that one is reached through the VPC's gateway endpoint.
    "state.checkpoints.dir"          = "s3://${local.bucket_names.checkpoints}/${local.state_prefix}/checkpoints"
    "state.savepoints.dir"           = "s3://${local.bucket_names.savepoints}/${local.state_prefix}/savepoints"
    "s3.endpoint"                    = "https://s3.${local.region}.amazonaws.com"
    "state.backend.rocksdb.localdir" = "/data/rocksdb"
    "io.tmp.dirs"                    = "/tmp"

    # Size.
    "jobmanager.memory.process.size"           = "${local.tier.jobmanager_memory_mib}m"
    "jobmanager.memory.jvm-overhead.fraction"  = "0.1"
    "taskmanager.memory.process.size"          = "${local.tier.taskmanager_memory_mib}m"
    "taskmanager.memory.jvm-overhead.fraction" = "0.1"
    "taskmanager.memory.managed.fraction"      = tostring(var.managed_memory_fraction)
    "taskmanager.memory.network.fraction"      = tostring(var.network_memory_fraction)
    "taskmanager.numberOfTaskSlots"            = tostring(var.task_slots)

    # Ports, and what may reach them: mutual TLS between Flink's processes; REST on the loopback, where the SSM tunnel ends.
    "high-availability.jobmanager.port"   = tostring(local.ports.jobmanager_rpc)
    "jobmanager.rpc.port"                 = tostring(local.ports.jobmanager_rpc)
    "blob.server.port"                    = tostring(local.ports.blob_server)
    "taskmanager.rpc.port"                = tostring(local.ports.taskmanager_rpc)
    "taskmanager.data.port"               = tostring(local.ports.taskmanager_data)
    "metrics.internal.query-service.port" = tostring(local.ports.metrics_query)
    "metrics.reporter.prom.port"          = tostring(local.ports.prometheus)
    "security.ssl.internal.enabled"       = "true"
    "security.ssl.algorithms"             = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    "rest.address"                        = "127.0.0.1"
    "rest.bind-address"                   = "127.0.0.1"
    "rest.port"                           = "8081"
    "web.submit.enable"                   = "false" # no uploading of jars; jobs come from our job server
  }

  # Not Flink's: `event-trigger status` reads it.
  elastic_settings = var.elastic ? { "event-trigger.elastic" = "true" } : {}

  # A JSON string is a YAML string, whatever it holds. The sizes of one kind of node are not in the other's user data.
  flink_config = {
    for role, other in { jobmanager = "taskmanager", taskmanager = "jobmanager" } : role => join("", [
      for key, value in merge(local.flink_settings, local.elastic_settings, var.flink_settings) : "${key}: ${jsonencode(value)}\n"
      if !startswith(key, "${other}.memory.")
    ])
  }
}
