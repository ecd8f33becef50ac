"""Infrastructure: the Terraform code of the cluster on EC2, and the artifacts that its nodes boot with."""
