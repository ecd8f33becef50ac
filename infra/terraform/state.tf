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
  input = { name = var.name, vpc_cidr = var.vpc_cidr }

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = self.output.name == var.name
      error_message = "name is '${var.name}', but this Terraform state is that of '${self.output.name}'. Another name is another cluster: give terraform init the key of its state. A cluster cannot be renamed."
    }

    postcondition {
      condition     = self.output.vpc_cidr == var.vpc_cidr
      error_message = "vpc_cidr is '${var.vpc_cidr}', but the cluster was made with '${self.output.vpc_cidr}'. It cannot be changed; make another cluster."
    }
  }
}
