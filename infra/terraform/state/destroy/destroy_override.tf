# Lets Terraform destroy the state of a cluster for good: copy this file beside main.tf, apply, destroy, remove it again
# (docs/infrastructure.md, "Destroy"). The key can be restored for 30 days after that, the buckets cannot.

resource "aws_s3_bucket" "this" {
  force_destroy = true

  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket" "access_log" {
  force_destroy = true

  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_kms_key" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_kms_alias" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket_versioning" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket_ownership_controls" "this" {
  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket" "replica" {
  force_destroy = true

  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_kms_key" "replica" {
  lifecycle {
    prevent_destroy = false
  }
}
