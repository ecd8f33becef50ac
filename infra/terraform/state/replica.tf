# A copy of the savepoints in another region, for the day on which this one is lost: an option. Deletions are copied, too,
# so that nothing of a user who is forgotten stays there for longer than here.

provider "aws" {
  alias  = "replica"
  region = coalesce(var.replica_region, var.region)

  default_tags {
    tags = { Cluster = var.name }
  }
}

locals {
  replicas = var.replica_region == null ? toset([]) : toset(["savepoints"])
}

resource "aws_kms_key" "replica" {
  for_each = local.replicas
  provider = aws.replica

  description             = "Copies of ${each.key} of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  tags = { Name = "${var.name}-replica" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "replica" {
  for_each = local.replicas
  provider = aws.replica

  name          = "alias/${var.name}-replica"
  target_key_id = aws_kms_key.replica[each.key].key_id
}

resource "aws_s3_bucket" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = "${var.name}-${each.key}-replica-${data.aws_caller_identity.current.account_id}"

  tags = { Name = "${var.name}-${each.key}-replica" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].bucket

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].bucket

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.replica[each.key].arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket                  = aws_s3_bucket.replica[each.key].bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].bucket

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

data "aws_iam_policy_document" "replica_tls_only" {
  for_each = local.replicas

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.replica[each.key].arn, "${aws_s3_bucket.replica[each.key].arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "replica" {
  for_each = var.attach_deny_insecure_transport_policy ? local.replicas : toset([])
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].bucket
  policy = data.aws_iam_policy_document.replica_tls_only[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.replica]
}

# As long as in the first bucket.
resource "aws_s3_bucket_lifecycle_configuration" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].bucket

  rule {
    id     = "deleted-objects"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  depends_on = [aws_s3_bucket_versioning.replica]
}

################################################################################
# Who copies
################################################################################

data "aws_iam_policy_document" "replication_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "replication" {
  for_each = local.replicas

  statement {
    sid       = "Source"
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [aws_s3_bucket.this[each.key].arn]
  }

  statement {
    sid       = "SourceVersions"
    actions   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    resources = ["${aws_s3_bucket.this[each.key].arn}/*"]
  }

  statement {
    sid       = "Copy"
    actions   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
    resources = ["${aws_s3_bucket.replica[each.key].arn}/*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "Encrypt"
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.replica[each.key].arn]
  }
}

resource "aws_iam_role" "replication" {
  for_each = local.replicas

  name               = "${var.name}-${each.key}-replication"
  description        = "S3, copying ${each.key} of ${var.name} to ${var.replica_region}"
  assume_role_policy = data.aws_iam_policy_document.replication_assume.json
}

resource "aws_iam_role_policy" "replication" {
  for_each = local.replicas

  name   = "replication"
  role   = aws_iam_role.replication[each.key].name
  policy = data.aws_iam_policy_document.replication[each.key].json
}

resource "aws_s3_bucket_replication_configuration" "this" {
  for_each = local.replicas

  bucket = aws_s3_bucket.this[each.key].bucket
  role   = aws_iam_role.replication[each.key].arn

  rule {
    id     = "replica"
    status = "Enabled"

    filter {}

    # Only a deletion by which a marker is made is ever copied; the versions expire by each bucket's own rule.
    delete_marker_replication {
      status = "Enabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = aws_s3_bucket.replica[each.key].arn
      storage_class = "STANDARD"

      encryption_configuration {
        replica_kms_key_id = aws_kms_key.replica[each.key].arn
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this, aws_s3_bucket_versioning.replica]
}
