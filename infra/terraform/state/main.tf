# What must outlive every mistake with the cluster: its KMS key and its buckets for checkpoints (JobManagers' HA metadata
# included), savepoints and artifacts. A root of its own, applied before the cluster: no plan of the cluster contains any of
# this. Terraform refuses to destroy it; docs/infrastructure.md says how it is done on purpose.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Cluster = var.name }
  }
}

data "aws_caller_identity" "current" {}

locals {
  buckets = {
    checkpoints = "${var.name}-checkpoints-${data.aws_caller_identity.current.account_id}"
    savepoints  = "${var.name}-savepoints-${data.aws_caller_identity.current.account_id}"
    artifacts   = "${var.name}-artifacts-${data.aws_caller_identity.current.account_id}"
  }
}

################################################################################
# Key
################################################################################

data "aws_iam_policy_document" "key" {
  # Access is then given by IAM policies of this account, as everywhere in AWS.
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  # Auto Scaling attaches encrypted volumes. Its service-linked role may not exist yet in a fresh account and then cannot
  # be named as principal; a condition can name it.
  statement {
    sid = "AutoScaling"
    actions = [
      "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKeyWithoutPlaintext",
      "kms:ReEncryptFrom", "kms:ReEncryptTo",
    ]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:CallerAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:PrincipalArn"
      values = [
        "arn:aws:iam::${data.aws_caller_identity.current.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling*",
      ]
    }
  }

  statement {
    sid       = "LogGroups"
    actions   = ["kms:Decrypt*", "kms:DescribeKey", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:aws:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:/event-trigger/${var.name}*"]
    }
  }

  statement {
    sid       = "AlarmsToEncryptedTopic"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com", "aps.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_kms_key" "this" {
  description             = "Volumes, buckets, parameters and topics of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json

  tags = { Name = var.name }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id

  lifecycle {
    prevent_destroy = true
  }
}

################################################################################
# Buckets
################################################################################

resource "aws_s3_bucket" "this" {
  for_each = local.buckets

  bucket = each.value

  tags = { Name = each.value }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.bucket

  versioning_configuration {
    status = "Enabled"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.bucket

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this.arn
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = aws_s3_bucket.this

  bucket                  = each.value.bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.bucket

  rule {
    object_ownership = "BucketOwnerEnforced"
  }

  lifecycle {
    prevent_destroy = true
  }
}

data "aws_iam_policy_document" "tls_only" {
  for_each = local.buckets

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["arn:aws:s3:::${each.value}", "arn:aws:s3:::${each.value}/*"]

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

resource "aws_s3_bucket_policy" "this" {
  for_each = var.attach_deny_insecure_transport_policy ? aws_s3_bucket.this : {}

  bucket = each.value.bucket
  policy = data.aws_iam_policy_document.tls_only[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.this]
}

# Flink deletes checkpoints that it no longer needs, and nobody else may: an incremental checkpoint shares files that are
# weeks old. What expires here is what Flink has deleted already (noncurrent versions) and uploads that were broken off.
# Deleted checkpoints are the bulk of all bytes written, so they are kept for a shorter time than anything else.
locals {
  noncurrent_days = {
    checkpoints = { "${var.name}/checkpoints/" = var.checkpoint_noncurrent_version_days, "${var.name}/ha/" = var.noncurrent_version_days }
    savepoints  = { "" = var.noncurrent_version_days }
    artifacts   = { "" = var.noncurrent_version_days }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.bucket

  dynamic "rule" {
    for_each = local.noncurrent_days[each.key]

    content {
      id     = "deleted-objects${replace(trimprefix(trimsuffix(rule.key, "/"), var.name), "/", "-")}"
      status = "Enabled"

      filter {
        prefix = rule.key
      }

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }
    }
  }

  rule {
    id     = "leftovers"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    # Removes markers whose versions are all gone; it cannot be combined with an expiry of live objects, nor is there one.
    expiration {
      expired_object_delete_marker = true
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
