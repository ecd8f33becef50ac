"""The long tests of infra/ (`make test-infra`): Terraform against moto, and a real boot of the nodes it describes."""
