# The key and the buckets of this cluster: made by the root in state/, found here by name, never changed or destroyed here.

data "aws_kms_alias" "state" {
  name = "alias/${var.name}"
}

data "aws_s3_bucket" "state" {
  for_each = { for kind in ["checkpoints", "savepoints", "artifacts"] : kind => "${var.name}-${kind}-${data.aws_caller_identity.current.account_id}" }

  bucket = each.value
}

locals {
  kms_key_arn  = data.aws_kms_alias.state.target_key_arn
  bucket_names = { for kind, bucket in data.aws_s3_bucket.state : kind => bucket.bucket }
  bucket_arns  = { for kind, bucket in data.aws_s3_bucket.state : kind => "arn:aws:s3:::${bucket.bucket}" }
}

# Clusters from before state/ existed: Terraform forgets key and buckets, and leaves them as they are.
removed {
  from = module.storage

  lifecycle {
    destroy = false
  }
}

# What a cluster cannot change: a plan with another value, or with the state of another cluster, ends here.
resource "terraform_data" "fixed" {
  input = { name = var.name, vpc_cidr = var.vpc_cidr, vpc_id = var.vpc_id, subnet_ids = var.subnet_ids, zookeeper_host_number = var.zookeeper_host_number }

  lifecycle {
    ignore_changes = [input]

    precondition {
      condition     = local.max_slots <= min(local.tier.user_shards, local.tier.max_parallelism)
      error_message = "taskmanager_max_count times task_slots is ${local.max_slots} slots, allowed: at most user_shards (${local.tier.user_shards}) and max_parallelism (${local.tier.max_parallelism}). A slot without a user shard does nothing."
    }

    precondition {
      condition     = !var.elastic && var.taskmanager_on_demand_count == null || lower(lookup(var.flink_settings, "jobmanager.scheduler", "adaptive")) == "adaptive"
      error_message = "flink_settings: jobmanager.scheduler is '${lookup(var.flink_settings, "jobmanager.scheduler", "")}', allowed: adaptive, with elastic and with spot instances. With any other a job stops when a TaskManager goes."
    }

    precondition {
      condition     = local.existing == null ? true : length(distinct(local.existing.zones)) == 3
      error_message = "subnet_ids are in ${join(", ", try(local.existing.zones, []))}, allowed: three different zones. ZooKeeper's quorum has to outlive one."
    }

    postcondition {
      condition     = self.output.name == var.name
      error_message = "name is '${var.name}', but this Terraform state is that of '${self.output.name}'. Another name is another cluster: give terraform init the key of its state. A cluster cannot be renamed."
    }

    postcondition {
      condition     = self.output.vpc_cidr == var.vpc_cidr
      error_message = "vpc_cidr is '${var.vpc_cidr}', but the cluster was made with '${self.output.vpc_cidr}'. It cannot be changed; make another cluster."
    }

    # A cluster from before there were these inputs has none of them.
    postcondition {
      condition     = jsonencode([var.vpc_id, var.subnet_ids]) == jsonencode([try(self.output.vpc_id, null), try(self.output.subnet_ids, [])])
      error_message = "vpc_id is ${jsonencode(var.vpc_id)}, subnet_ids ${jsonencode(var.subnet_ids)}, but the cluster was made with ${jsonencode(try(self.output.vpc_id, null))}, ${jsonencode(try(self.output.subnet_ids, []))}. They cannot be changed; make another cluster."
    }

    postcondition {
      condition     = var.zookeeper_host_number == try(self.output.zookeeper_host_number, 10)
      error_message = "zookeeper_host_number is ${var.zookeeper_host_number}, but the cluster was made with ${try(self.output.zookeeper_host_number, 10)}. It cannot be changed; make another cluster."
    }
  }
}
