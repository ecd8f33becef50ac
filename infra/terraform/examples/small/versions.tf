terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }

  # Bucket and region: terraform init -backend-config=backend.hcl
  backend "s3" {
    key          = "event-trigger/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}
