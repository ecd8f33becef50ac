output "cluster" {
  description = "Everything the module gives, as tunnel_command and submit_flags"
  value       = module.cluster
}
