# Key and buckets of a cluster. So that the test may destroy what it made, destroy_override.tf has to lie in state/
# (tests/infra/conftest.py puts it there, in a copy).

mock_provider "aws" {
  source = "./tests/mocks"
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
  }

  expect_failures = [var.name, var.checkpoint_noncurrent_version_days, var.noncurrent_version_days, var.access_log_days]
}
