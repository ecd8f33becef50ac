output "kms_key_arn" {
  description = "Key of volumes, buckets, parameters and topics"
  value       = aws_kms_key.this.arn
}

output "bucket_names" {
  description = "Buckets by kind: checkpoints, savepoints, artifacts"
  value       = { for kind, bucket in aws_s3_bucket.this : kind => bucket.bucket }
}

output "bucket_arns" {
  description = "Their ARNs"
  value       = { for kind, name in local.buckets : kind => "arn:aws:s3:::${name}" }
}

output "replica_bucket_names" {
  description = "Buckets with copies in replica_region, by kind"
  value       = { for kind, bucket in aws_s3_bucket.replica : kind => bucket.bucket }
}
