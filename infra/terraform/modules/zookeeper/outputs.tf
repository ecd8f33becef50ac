output "quorum" {
  description = "high-availability.zookeeper.quorum: HOST:PORT,HOST:PORT,HOST:PORT"
  value       = join(",", [for address in local.addresses : "${address}:2181"])
}

output "instance_ids" {
  description = "Instances, in the order of the zones"
  value       = aws_instance.this[*].id
}

output "user_data" {
  description = "Rendered cloud-config, for tests"
  value       = module.bootstrap.user_data
}
