output "group" {
  description = "Auto Scaling group: name and sizes"
  value = {
    name    = aws_autoscaling_group.this.name
    minimum = aws_autoscaling_group.this.min_size
    desired = aws_autoscaling_group.this.desired_capacity
    maximum = aws_autoscaling_group.this.max_size
  }
}

output "launch_template" {
  description = "What tests assert on: disks, metadata options, network interfaces"
  value = {
    id                    = aws_launch_template.this.id
    instance_type         = aws_launch_template.this.instance_type
    block_device_mappings = aws_launch_template.this.block_device_mappings
    metadata_options      = aws_launch_template.this.metadata_options
    network_interfaces    = aws_launch_template.this.network_interfaces
  }
}

output "user_data" {
  description = "Rendered cloud-config, for tests"
  value       = module.bootstrap.user_data
}
