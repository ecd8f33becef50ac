# Key and buckets of a cluster. So that the test may destroy what it made, destroy_override.tf has to lie in state/
# (tests/infra/conftest.py puts it there, in a copy).

mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "aws" {
  alias  = "replica"
  source = "./tests/mocks"
}

# First, because Terraform skips what follows a run that fails to apply.
run "state_out_of_range" {
  command = plan

  module {
    source = "./state"
  }

  variables {
    name                               = "Test"
    region                             = "eu-central-1"
    checkpoint_noncurrent_version_days = 0
    noncurrent_version_days            = 1.5
    access_log_days                    = 0
    replica_region                     = "eu-central-1"
  }

  expect_failures = [var.name, var.replica_region, var.checkpoint_noncurrent_version_days, var.noncurrent_version_days, var.access_log_days]
}

run "state" {
  command = apply

  module {
    source = "./state"
  }

  variables {
    name   = "test"
    region = "eu-central-1"
  }

  assert {
    condition     = output.bucket_names == { for kind in ["checkpoints", "savepoints", "artifacts"] : kind => "test-${kind}-123456789012" }
    error_message = "The cluster looks for buckets of these names."
  }

  assert {
    condition     = { for kind, logging in aws_s3_bucket_logging.this : kind => "${logging.target_bucket}/${logging.target_prefix}" } == { for kind in ["checkpoints", "savepoints", "artifacts"] : kind => "test-access-log-123456789012/${kind}/" }
    error_message = "Who read or wrote objects of each bucket is logged."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.access_log.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256" && aws_s3_bucket_public_access_block.access_log.restrict_public_buckets
    error_message = "S3 can write its log, and nobody from outside can read it."
  }
}

run "with_a_copy_in_another_region" {
  command = apply

  module {
    source = "./state"
  }

  variables {
    name           = "test"
    region         = "eu-central-1"
    replica_region = "eu-west-1"
  }

  assert {
    condition     = output.replica_bucket_names == { savepoints = "test-savepoints-replica-123456789012" }
    error_message = "Savepoints are copied, checkpoints are not."
  }

  assert {
    condition     = one(aws_s3_bucket_replication_configuration.this["savepoints"].rule).delete_marker_replication[0].status == "Enabled" && one(aws_s3_bucket_replication_configuration.this["savepoints"].rule).source_selection_criteria[0].sse_kms_encrypted_objects[0].status == "Enabled"
    error_message = "Deletions are copied, and objects that are encrypted with our key."
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.replica["savepoints"].rule).noncurrent_version_expiration[0].noncurrent_days == 7 && aws_s3_bucket_public_access_block.replica["savepoints"].restrict_public_buckets && aws_s3_bucket_versioning.replica["savepoints"].versioning_configuration[0].status == "Enabled"
    error_message = "A copy is kept for as long as the savepoint, and is as private."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.replica["savepoints"].rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "Copies are encrypted with a key of their region."
  }
}
