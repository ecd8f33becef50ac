# What is off by default: MSK, NAT gateways, egress to everywhere, a Prometheus server, secrets, a number of TaskManagers
# that follows the load, spot instances.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_data {
  target = data.aws_ec2_instance_type.jobmanager
  values = {
    memory_size             = 16384
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = data.aws_ec2_instance_type.taskmanager
  values = {
    memory_size             = 32768
    network_performance     = "Up to 40 Gigabit"
    total_instance_storage  = 474
    instance_disks          = [{ count = 1, size = 474, type = "ssd" }]
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = data.aws_ec2_instance_type.spot
  values = {
    memory_size              = 32768
    total_instance_storage   = 474
    instance_disks           = [{ count = 1, size = 474, type = "ssd" }]
    supported_architectures  = ["x86_64"]
    supported_usages_classes = ["on-demand", "spot"]
  }
}

override_resource {
  target = module.taskmanager.aws_autoscaling_policy.out[0]
  values = { arn = "arn:aws:autoscaling:eu-central-1:123456789012:scalingPolicy:1:autoScalingGroupName/test:policyName/out" }
}

override_resource {
  target = module.taskmanager.aws_autoscaling_policy.in[0]
  values = { arn = "arn:aws:autoscaling:eu-central-1:123456789012:scalingPolicy:1:autoScalingGroupName/test:policyName/in" }
}

variables {
  ami_id      = "ami-0123456789abcdef0"
  name        = "test"
  tier        = "large"
  release_dir = "./tests/fixtures/release"
}

run "everything_on" {
  command = apply

  variables {
    create_kafka                 = true
    nat_gateway_count            = 3
    single_zone                  = true
    elastic                      = true
    taskmanager_on_demand_count  = 20
    taskmanager_spot_types       = ["m6id.2xlarge"]
    monthly_budget_usd           = 90000
    prometheus_security_group_id = "sg-0123456789abcdef0"
    secret_arns                  = ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:webhooks-AbCdEf"]

    egress = {
      webhooks = {
        description = "Webhooks"
        from        = ["taskmanager"]
        port        = 443
        cidr_ipv4   = "0.0.0.0/0"
      }
    }
  }

  assert {
    condition     = output.bootstrap_servers == "b-1.test:9098,b-2.test:9098,b-3.test:9098"
    error_message = "The job reads from the MSK cluster."
  }

  assert {
    condition     = contains(output.submit_flags, "--kafka_security=SASL_SSL") && contains(output.submit_flags, "--kafka_sasl_mechanism=AWS_MSK_IAM")
    error_message = "The job logs in to MSK by IAM."
  }

  assert {
    condition     = contains(output.submit_flags, "--parallelism=200") && strcontains(output.user_data.jobmanager, "event-trigger.elastic: \"true\"")
    error_message = "The job may use all slots that there may be, and is not called degraded on those that there are."
  }

  assert {
    condition     = length([for rule in output.ingress_rules : rule if rule.source_group_id == "sg-0123456789abcdef0" && rule.from_port == 9249 && rule.to_port == 9249]) == 2
    error_message = "Prometheus reaches its port on JobManagers and TaskManagers."
  }

  assert {
    condition     = alltrue([for rule in output.ingress_rules : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && rule.source_group_id != null])
    error_message = "Every ingress rule names a security group, never an address."
  }
}
