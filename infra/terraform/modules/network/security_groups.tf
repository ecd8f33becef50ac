# Who may talk to whom, all of it. Ingress names a security group, never an address; Flink's REST port is not here at all
# (it listens on the JobManager's loopback, and the SSM tunnel ends there).

locals {
  node_kinds = ["zookeeper", "jobmanager", "taskmanager"]

  flows = { for name, flow in local.all_flows : name => flow if var.endpoints || flow.to != "endpoints" }

  all_flows = {
    zookeeper-quorum        = { from = "zookeeper", to = "zookeeper", port = 2888 }
    zookeeper-election      = { from = "zookeeper", to = "zookeeper", port = 3888 }
    jobmanager-to-zookeeper = { from = "jobmanager", to = "zookeeper", port = 2181 }
    taskmanager-finds-jobs  = { from = "taskmanager", to = "zookeeper", port = 2181 }

    # A standby's web UI asks the leader; the leader asks everyone for metrics.
    jobmanager-rpc              = { from = "jobmanager", to = "jobmanager", port = var.ports.jobmanager_rpc }
    jobmanager-metrics          = { from = "jobmanager", to = "jobmanager", port = var.ports.metrics_query }
    jobmanager-to-taskmanager   = { from = "jobmanager", to = "taskmanager", port = var.ports.taskmanager_rpc }
    taskmanager-metrics         = { from = "jobmanager", to = "taskmanager", port = var.ports.metrics_query }
    taskmanager-to-jobmanager   = { from = "taskmanager", to = "jobmanager", port = var.ports.jobmanager_rpc }
    taskmanager-blobs           = { from = "taskmanager", to = "jobmanager", port = var.ports.blob_server }
    taskmanager-shuffle         = { from = "taskmanager", to = "taskmanager", port = var.ports.taskmanager_data }
    zookeeper-to-aws-endpoints  = { from = "zookeeper", to = "endpoints", port = 443 }
    jobmanager-to-aws-endpoints = { from = "jobmanager", to = "endpoints", port = 443 }
    taskmanager-to-aws-endpoint = { from = "taskmanager", to = "endpoints", port = 443 }
  }

  extra_egress = merge([
    for name, rule in var.egress : { for node in rule.from : "${name}-${node}" => merge(rule, { node = node }) }
  ]...)
}

resource "aws_security_group" "this" {
  for_each = toset(concat(local.node_kinds, var.endpoints ? ["endpoints"] : []))

  name        = "${var.name}-${each.key}"
  description = "${each.key} of ${var.name}"
  vpc_id      = local.vpc_id

  tags = { Name = "${var.name}-${each.key}" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

data "aws_prefix_list" "s3" {
  count = var.endpoints ? 0 : 1

  name = "com.amazonaws.${data.aws_region.current.name}.s3"
}

# Endpoints that the VPC has: in it, we do not know where.
resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each = toset(var.endpoints ? [] : local.node_kinds)

  security_group_id = aws_security_group.this[each.key].id
  cidr_ipv4         = var.existing.cidr
  description       = "AWS through endpoints of the VPC"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = toset(local.node_kinds)

  security_group_id = aws_security_group.this[each.key].id
  prefix_list_id    = var.endpoints ? aws_vpc_endpoint.s3[0].prefix_list_id : data.aws_prefix_list.s3[0].id
  description       = "S3 through the gateway endpoint"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "prometheus" {
  for_each = var.prometheus_security_group_id == null ? toset([]) : toset(["jobmanager", "taskmanager"])

  security_group_id            = aws_security_group.this[each.key].id
  referenced_security_group_id = var.prometheus_security_group_id
  description                  = "Prometheus"
  ip_protocol                  = "tcp"
  from_port                    = var.ports.prometheus
  to_port                      = var.ports.prometheus
}

resource "aws_vpc_security_group_egress_rule" "extra" {
  for_each = local.extra_egress

  security_group_id            = aws_security_group.this[each.value.node].id
  referenced_security_group_id = each.value.security_group_id
  prefix_list_id               = each.value.prefix_list_id
  cidr_ipv4                    = each.value.cidr_ipv4
  description                  = each.value.description
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}
