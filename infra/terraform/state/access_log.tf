# Who read or wrote which object. In a bucket of its own with S3's own encryption: S3's logging service cannot use the key.

locals {
  access_log_bucket = "${var.name}-access-log-${data.aws_caller_identity.current.account_id}"
}

resource "aws_s3_bucket" "access_log" {
  bucket = local.access_log_bucket

  tags = { Name = local.access_log_bucket }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "access_log" {
  bucket = aws_s3_bucket.access_log.bucket

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "access_log" {
  bucket                  = aws_s3_bucket.access_log.bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "access_log" {
  bucket = aws_s3_bucket.access_log.bucket

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "access_log" {
  bucket = aws_s3_bucket.access_log.bucket

  rule {
    id     = "old-entries"
    status = "Enabled"

    filter {}

    expiration {
      days = var.access_log_days
    }
  }
}

data "aws_iam_policy_document" "access_log" {
  statement {
    sid       = "S3Writes"
    actions   = ["s3:PutObject"]
    resources = ["arn:aws:s3:::${local.access_log_bucket}/*"]

    principals {
      type        = "Service"
      identifiers = ["logging.s3.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = [for name in local.buckets : "arn:aws:s3:::${name}"]
    }
  }

  dynamic "statement" {
    for_each = var.attach_deny_insecure_transport_policy ? [1] : []

    content {
      sid       = "TlsOnly"
      effect    = "Deny"
      actions   = ["s3:*"]
      resources = ["arn:aws:s3:::${local.access_log_bucket}", "arn:aws:s3:::${local.access_log_bucket}/*"]

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
}

resource "aws_s3_bucket_policy" "access_log" {
  bucket = aws_s3_bucket.access_log.bucket
  policy = data.aws_iam_policy_document.access_log.json

  depends_on = [aws_s3_bucket_public_access_block.access_log]
}

resource "aws_s3_bucket_logging" "this" {
  for_each = aws_s3_bucket.this

  bucket        = each.value.bucket
  target_bucket = aws_s3_bucket.access_log.bucket
  target_prefix = "${each.key}/"

  depends_on = [aws_s3_bucket_policy.access_log]
}
