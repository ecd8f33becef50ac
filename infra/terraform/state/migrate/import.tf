# For clusters from before this root existed, whose key and buckets are in the state of the cluster: copy this file beside
# main.tf, apply, remove it again (docs/infrastructure.md, "From an older layout").

data "aws_kms_alias" "existing" {
  name = "alias/${var.name}"
}

import {
  to = aws_kms_key.this
  id = data.aws_kms_alias.existing.target_key_id
}

import {
  to = aws_kms_alias.this
  id = "alias/${var.name}"
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket.this[each.key]
  id       = each.value
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket_versioning.this[each.key]
  id       = each.value
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket_server_side_encryption_configuration.this[each.key]
  id       = each.value
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket_public_access_block.this[each.key]
  id       = each.value
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket_ownership_controls.this[each.key]
  id       = each.value
}

import {
  for_each = var.attach_deny_insecure_transport_policy ? local.buckets : {}
  to       = aws_s3_bucket_policy.this[each.key]
  id       = each.value
}

import {
  for_each = local.buckets
  to       = aws_s3_bucket_lifecycle_configuration.this[each.key]
  id       = each.value
}
