# A VPC that exists, instead of one of ours. The number of subnets says which, because it is known before any of them is.

locals {
  existing_count = length(var.subnet_ids)

  existing = local.existing_count == 0 ? null : {
    vpc_id          = one(data.aws_vpc.existing[*].id)
    cidr            = one(data.aws_vpc.existing[*].cidr_block)
    subnet_ids      = data.aws_subnet.existing[*].id
    subnet_cidrs    = data.aws_subnet.existing[*].cidr_block
    zones           = data.aws_subnet.existing[*].availability_zone
    route_table_ids = data.aws_route_table.existing[*].id
  }
}

data "aws_vpc" "existing" {
  count = local.existing_count == 0 ? 0 : 1

  id = var.vpc_id

  lifecycle {
    postcondition {
      condition     = !var.vpc_endpoints || (self.enable_dns_support && self.enable_dns_hostnames)
      error_message = "vpc_id: ${var.vpc_id} has enable_dns_support = ${self.enable_dns_support} and enable_dns_hostnames = ${self.enable_dns_hostnames}; endpoints need both."
    }
  }
}

data "aws_subnet" "existing" {
  count = local.existing_count

  id = var.subnet_ids[count.index]

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.vpc_id
      error_message = "subnet_ids: ${self.id} is in ${self.vpc_id}, allowed: subnets of vpc_id ${var.vpc_id}."
    }
  }
}

# Where the way to S3 is entered.
data "aws_route_table" "existing" {
  count = var.vpc_endpoints ? local.existing_count : 0

  subnet_id = var.subnet_ids[count.index]
}
