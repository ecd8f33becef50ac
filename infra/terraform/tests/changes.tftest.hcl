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
  name                    = "test"
  tier                    = "small"
  release_dir             = "./tests/fixtures/release"
  kafka_bootstrap_servers = "kafka-1:9094"
}

run "cluster" {
  command = apply
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
