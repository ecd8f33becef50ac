output "user_data" {
  description = "The cloud-config as text"
  value       = local.user_data
}

output "user_data_base64" {
  description = "The cloud-config, compressed: cloud-init unpacks it by itself"
  value       = base64gzip(local.user_data)

  precondition {
    condition     = length(base64gzip(local.user_data)) * 3 / 4 <= 16384
    error_message = "User data of ${var.role} has ${floor(length(base64gzip(local.user_data)) * 3 / 4)} bytes compressed, EC2 allows 16384."
  }
}
