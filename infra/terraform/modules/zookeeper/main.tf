# Three ZooKeeper nodes with fixed addresses, one a zone. Their data volumes are resources of their own, so that a replaced
# instance finds its data again. A changed image, instance type or user data replaces and stops nothing by itself: that would
# take all three at once (docs/infrastructure.md: one after the other with -replace).

locals {
  addresses = [for cidr in var.subnet_cidrs : cidrhost(cidr, var.host_number)]
}

module "bootstrap" {
  source = "../bootstrap"

  role            = "zookeeper"
  service         = "zookeeper"
  region          = var.region
  packages        = var.boot.packages
  artifact_bucket = var.boot.artifact_bucket
  artifacts       = [var.boot.artifacts.zookeeper]
  volumes         = [{ device = "/dev/sdf", mount = "/data/zookeeper", label = "zookeeper" }]
  tls_parameter   = null
  group_name      = null
  kms_key_arn     = var.kms_key_arn

  zookeeper_parameters = var.zookeeper_parameters

  files = {
    "/etc/zookeeper/zoo.cfg" = {
      content = templatefile("${path.module}/templates/zoo.cfg.tftpl", { addresses = local.addresses })
    }
    "/etc/zookeeper/logback.xml"                 = { content = file("${path.module}/files/logback.xml") }
    "/etc/systemd/system/zookeeper.service"      = { content = templatefile("${path.module}/templates/zookeeper.service.tftpl", { heap_mib = var.heap_mib }) }
    "/etc/event-trigger/cloudwatch-metrics.json" = { content = var.boot.cloudwatch_config }
  }
}

resource "aws_instance" "this" {
  count = 3

  ami                     = var.ami_id
  instance_type           = var.instance_type
  subnet_id               = var.subnet_ids[count.index]
  private_ip              = local.addresses[count.index]
  vpc_security_group_ids  = [var.security_group_id]
  iam_instance_profile    = var.instance_profile_name
  user_data_base64        = module.bootstrap.user_data_base64
  disable_api_termination = var.deletion_protection
  ebs_optimized           = true

  associate_public_ip_address = false

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.root_volume_gib
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    tags        = { Name = "${var.name}-zookeeper-${count.index + 1}", Cluster = var.name }
  }

  tags = { Name = "${var.name}-zookeeper-${count.index + 1}", Cluster = var.name }

  lifecycle {
    ignore_changes = [ami, instance_type, user_data_base64]
  }
}

resource "aws_ebs_volume" "data" {
  count = 3

  availability_zone = var.zones[count.index]
  type              = "gp3"
  size              = var.data_volume_gib
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = var.deletion_protection

  tags = { Name = "${var.name}-zookeeper-${count.index + 1}", Cluster = var.name }
}

resource "aws_volume_attachment" "data" {
  count = 3

  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.data[count.index].id
  instance_id                    = aws_instance.this[count.index].id
  stop_instance_before_detaching = true
}
