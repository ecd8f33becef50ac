# Production: a JobManager and a standby, 4 to 8 TaskManagers of 4 slots, about 100 K events/s.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Cluster = var.name }
  }
}

module "cluster" {
  source = "../.."

  name        = var.name
  tier        = "medium"
  release_dir = var.release_dir
  ami_id      = var.ami_id

  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids

  kafka_bootstrap_servers = var.kafka_bootstrap_servers

  egress = merge(
    var.kafka_security_group_id == null ? {} : {
      kafka = {
        description       = "Kafka brokers"
        from              = ["jobmanager", "taskmanager"] # the source's enumerator runs in the JobManager
        port              = var.kafka_port
        security_group_id = var.kafka_security_group_id
      }
    },
    {
      for cidr in var.kafka_cidrs : "kafka ${cidr}" => {
        description = "Kafka brokers"
        from        = ["jobmanager", "taskmanager"]
        port        = var.kafka_port
        cidr_ipv4   = cidr
      }
    },
  )
}
