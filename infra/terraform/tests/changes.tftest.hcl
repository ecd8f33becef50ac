# What a change of an input plans on a cluster that exists.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_data {
  target = data.aws_ec2_instance_type.jobmanager
  values = {
    memory_size             = 4096
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = data.aws_ec2_instance_type.taskmanager
  values = {
    memory_size             = 16384
    network_performance     = "Up to 12.5 Gigabit"
    total_instance_storage  = 0
    supported_architectures = ["x86_64"]
  }
}

variables {
  ami_id                  = "ami-0123456789abcdef0"
  name                    = "test"
  tier                    = "small"
  release_dir             = "./tests/fixtures/release"
  kafka_bootstrap_servers = "kafka-1:9094"
}

run "cluster" {
  command = apply
}

# tests/infra/test_terraform.py looks at what these two change.

run "one_more_taskmanager" {
  command = plan

  variables {
    taskmanager_count     = 2
    taskmanager_max_count = 2
  }

  assert {
    condition     = contains(output.submit_flags, "--parallelism=8")
    error_message = "The next launch uses the new slots."
  }
}

run "another_interval" {
  command = plan

  variables {
    checkpointing_interval_s = 30
    parallelism              = 2
  }

  assert {
    condition     = length(setsubtract(["--parallelism=2", "--checkpointing_interval_ms=30000"], output.submit_flags)) == 0
    error_message = "The next launch carries both."
  }
}

run "another_image" {
  command = plan

  variables {
    ami_id = "ami-0fedcba9876543210"
  }
}

run "another_name_on_the_same_state" {
  command = plan

  variables {
    name = "other"
  }

  expect_failures = [terraform_data.fixed]
}

run "another_range_on_the_same_state" {
  command = plan

  variables {
    vpc_cidr = "10.61.0.0/16"
  }

  expect_failures = [terraform_data.fixed]
}
