# VPC with private subnets only, or one that exists. The way to AWS is through endpoints; a NAT gateway, with the public
# subnets it needs, is optional. Security groups are in security_groups.tf, the log of connections in flow_log.tf.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

data "aws_availability_zones" "available" {
  state = "available"
}

locals {
  own_count = var.existing == null ? 1 : 0

  vpc_id          = var.existing == null ? aws_vpc.this[0].id : var.existing.vpc_id
  subnet_ids      = var.existing == null ? aws_subnet.private[*].id : var.existing.subnet_ids
  route_table_ids = var.existing == null ? aws_route_table.private[*].id : var.existing.route_table_ids
  zones           = var.existing == null ? slice(data.aws_availability_zones.available.names, 0, 3) : var.existing.zones

  # A /16 gives /20 subnets: 0, 1, 2 private, 8, 9, 10 public.
  private_cidrs = var.existing == null ? [for index in range(3) : cidrsubnet(var.cidr, 4, index)] : var.existing.subnet_cidrs
  public_cidrs  = [for index in range(3) : cidrsubnet(var.cidr, 4, index + 8)]

  # What a node calls without the internet: SSM (sessions, parameters), Auto Scaling (drain), CloudWatch, secrets,
  # Prometheus.
  interface_endpoints = toset(!var.endpoints ? [] : concat(
    ["ssm", "ssmmessages", "ec2messages", "autoscaling", "logs", "monitoring"],
    var.secrets_manager ? ["secretsmanager"] : [],
    var.prometheus ? ["aps-workspaces"] : [],
  ))
}

resource "aws_vpc" "this" {
  count = local.own_count

  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# AWS makes one with everything allowed within it; ours allows nothing.
resource "aws_default_security_group" "this" {
  count = local.own_count

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-default-unused" }
}

resource "aws_subnet" "private" {
  count = 3 * local.own_count

  vpc_id                  = aws_vpc.this[0].id
  cidr_block              = local.private_cidrs[count.index]
  availability_zone       = local.zones[count.index]
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_route_table" "private" {
  count = 3 * local.own_count

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_route_table_association" "private" {
  count = 3 * local.own_count

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}

################################################################################
# Endpoints
################################################################################

data "aws_iam_policy_document" "s3_endpoint" {
  statement {
    sid       = "OurBuckets"
    actions   = ["s3:*"]
    resources = flatten([for arn in var.bucket_arns : [arn, "${arn}/*"]])

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }

  statement {
    sid       = "AmazonLinuxPackages"
    actions   = ["s3:GetObject"]
    resources = ["arn:aws:s3:::al2023-repos-${data.aws_region.current.name}-*/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}

resource "aws_vpc_endpoint" "s3" {
  count = var.endpoints ? 1 : 0

  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${data.aws_region.current.name}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.route_table_ids
  policy            = data.aws_iam_policy_document.s3_endpoint.json

  tags = { Name = "${var.name}-s3" }
}

# Only this account's roles get through, so that nothing leaves to another account's AWS. What each may do its own role says.
data "aws_iam_policy_document" "interface_endpoint" {
  statement {
    sid       = "OurAccount"
    actions   = ["*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_endpoints

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${data.aws_region.current.name}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  policy              = data.aws_iam_policy_document.interface_endpoint.json
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.this["endpoints"].id]

  tags = { Name = "${var.name}-${each.key}" }
}

################################################################################
# NAT, optional
################################################################################

resource "aws_internet_gateway" "this" {
  count = var.nat_gateway_count > 0 ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  count = var.nat_gateway_count

  vpc_id                  = aws_vpc.this[0].id
  cidr_block              = local.public_cidrs[count.index]
  availability_zone       = local.zones[count.index]
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-nat-${local.zones[count.index]}" }
}

resource "aws_route_table" "public" {
  count = var.nat_gateway_count > 0 ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-nat" }
}

resource "aws_route" "internet" {
  count = var.nat_gateway_count > 0 ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  count = var.nat_gateway_count

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  count = var.nat_gateway_count

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${local.zones[count.index]}" }
}

resource "aws_nat_gateway" "this" {
  count = var.nat_gateway_count

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags = { Name = "${var.name}-${local.zones[count.index]}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route" "nat" {
  count = var.nat_gateway_count > 0 ? 3 : 0

  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  # With fewer gateways than zones the first one serves the rest.
  nat_gateway_id = aws_nat_gateway.this[min(count.index, var.nat_gateway_count - 1)].id
}
