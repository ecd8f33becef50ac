# A VPC that exists: with endpoints of ours, and with its own; what of it is refused.

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

override_data {
  target = data.aws_vpc.existing[0]
  values = {
    id                   = "vpc-0123456789abcdef0"
    cidr_block           = "10.20.0.0/16"
    enable_dns_support   = true
    enable_dns_hostnames = true
  }
}

override_data {
  target = data.aws_subnet.existing[0]
  values = {
    id                = "subnet-0123456789abcdef0"
    vpc_id            = "vpc-0123456789abcdef0"
    cidr_block        = "10.20.1.0/24"
    availability_zone = "eu-central-1a"
  }
}

override_data {
  target = data.aws_subnet.existing[1]
  values = {
    id                = "subnet-0123456789abcdef1"
    vpc_id            = "vpc-0123456789abcdef0"
    cidr_block        = "10.20.2.0/24"
    availability_zone = "eu-central-1b"
  }
}

override_data {
  target = data.aws_subnet.existing[2]
  values = {
    id                = "subnet-0123456789abcdef2"
    vpc_id            = "vpc-0123456789abcdef0"
    cidr_block        = "10.20.3.0/24"
    availability_zone = "eu-central-1c"
  }
}

variables {
  ami_id                  = "ami-0123456789abcdef0"
  name                    = "test"
  tier                    = "small"
  release_dir             = "./tests/fixtures/release"
  kafka_bootstrap_servers = "kafka-1:9094"
  vpc_id                  = "vpc-0123456789abcdef0"
  subnet_ids              = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
  zookeeper_host_number   = 200
}

run "endpoints_of_its_own" {
  command = apply

  variables {
    vpc_endpoints = false
  }

  assert {
    condition     = output.zookeeper_quorum == "10.20.1.200:2181,10.20.2.200:2181,10.20.3.200:2181"
    error_message = "ZooKeeper has the addresses that are free."
  }

  assert {
    condition     = length(output.private_route_table_ids) == 0 && !contains(keys(output.security_group_ids), "endpoints")
    error_message = "Its route tables and endpoints are not ours."
  }
}

run "endpoints_of_ours" {
  command = apply

  assert {
    condition     = length(output.private_route_table_ids) == 3 && contains(keys(output.security_group_ids), "endpoints")
    error_message = "The way to S3 is entered into its route tables."
  }
}

run "out_of_the_way_numbers" {
  command = plan

  variables {
    subnet_ids            = ["subnet-0123456789abcdef0"]
    zookeeper_host_number = 3
  }

  expect_failures = [var.subnet_ids, var.zookeeper_host_number]
}

run "gateways_in_a_vpc_that_exists" {
  command = plan

  variables {
    nat_gateway_count = 1
  }

  expect_failures = [var.subnet_ids]
}

run "no_id_of_a_vpc" {
  command = plan

  variables {
    vpc_id = "vpc"
  }

  expect_failures = [var.vpc_id]
}

run "a_vpc_without_subnets" {
  command = plan

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "no_way_to_aws" {
  command = plan

  variables {
    vpc_id        = null
    subnet_ids    = []
    vpc_endpoints = false
  }

  expect_failures = [var.vpc_endpoints]
}

run "without_names_for_endpoints" {
  command = plan

  override_data {
    target = data.aws_vpc.existing[0]
    values = {
      id                   = "vpc-0123456789abcdef0"
      cidr_block           = "10.20.0.0/16"
      enable_dns_support   = true
      enable_dns_hostnames = false
    }
  }

  expect_failures = [data.aws_vpc.existing[0]]
}

run "two_subnets_in_one_zone" {
  command = plan

  override_data {
    target = data.aws_subnet.existing[2]
    values = {
      id                = "subnet-0123456789abcdef2"
      vpc_id            = "vpc-0123456789abcdef0"
      cidr_block        = "10.20.3.0/24"
      availability_zone = "eu-central-1b"
    }
  }

  expect_failures = [terraform_data.fixed]
}

run "a_subnet_of_another_vpc" {
  command = plan

  override_data {
    target = data.aws_subnet.existing[1]
    values = {
      id                = "subnet-0123456789abcdef1"
      vpc_id            = "vpc-0fedcba9876543210"
      cidr_block        = "10.20.2.0/24"
      availability_zone = "eu-central-1b"
    }
  }

  expect_failures = [data.aws_subnet.existing[1]]
}
