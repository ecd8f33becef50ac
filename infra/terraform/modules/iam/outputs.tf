output "instance_profile_names" {
  description = "Instance profiles by node kind"
  value       = { for kind, profile in aws_iam_instance_profile.this : kind => profile.name }
}

output "role_arns" {
  description = "Roles by node kind"
  value       = { for kind, role in aws_iam_role.this : kind => role.arn }
}
