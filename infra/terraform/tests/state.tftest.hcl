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
  }

  expect_failures = [var.name, var.checkpoint_noncurrent_version_days, var.noncurrent_version_days]
}
