output "vpc_id" {
  description = "The VPC"
  value       = local.vpc_id
}

output "private_subnet_ids" {
  description = "Private subnets, one in each of three zones"
  value       = local.subnet_ids
}

output "private_route_table_ids" {
  description = "Their route tables, in the same order; empty without endpoints of ours"
  value       = local.route_table_ids
}

output "private_subnet_cidrs" {
  description = "Their IPv4 ranges, in the same order"
  value       = local.private_cidrs
}

output "zones" {
  description = "Their availability zones, in the same order"
  value       = local.zones
}

output "security_group_ids" {
  description = "Security groups by kind: zookeeper, jobmanager, taskmanager, and endpoints if they are ours"
  value       = { for kind, group in aws_security_group.this : kind => group.id }
}

output "ingress_rules" {
  description = "Every ingress rule, for tests: port, source security group, source range (always null)"
  value = [
    for rule in concat(
      values(aws_vpc_security_group_ingress_rule.flow), values(aws_vpc_security_group_ingress_rule.prometheus)
      ) : {
      from_port       = rule.from_port
      to_port         = rule.to_port
      source_group_id = rule.referenced_security_group_id
      cidr_ipv4       = rule.cidr_ipv4
      cidr_ipv6       = rule.cidr_ipv6
    }
  ]
}
