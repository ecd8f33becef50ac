terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }

  # bucket, region and key are given to terraform init; the key contains the name: event-trigger/NAME/cluster.tfstate
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
