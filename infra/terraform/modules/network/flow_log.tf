# Who connected to whom, and what was refused: the first thing that is asked for after an incident.

resource "aws_cloudwatch_log_group" "flow" {
  name              = "${var.log_group_name}/connections"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

data "aws_iam_policy_document" "flow_log_service" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "flow_log" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:DescribeLogGroups", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = [aws_cloudwatch_log_group.flow.arn, "${aws_cloudwatch_log_group.flow.arn}:*"]
  }
}

resource "aws_iam_role" "flow_log" {
  name               = "${var.name}-flow-log"
  description        = "Flow log of ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.flow_log_service.json
}

resource "aws_iam_role_policy" "flow_log" {
  name   = "write"
  role   = aws_iam_role.flow_log.name
  policy = data.aws_iam_policy_document.flow_log.json
}

# Of our VPC, or of our subnets in one that exists.
resource "aws_flow_log" "this" {
  count = var.existing == null ? 1 : 3

  vpc_id                   = var.existing == null ? aws_vpc.this[0].id : null
  subnet_id                = var.existing == null ? null : local.subnet_ids[count.index]
  traffic_type             = "ALL"
  max_aggregation_interval = 600
  log_destination          = aws_cloudwatch_log_group.flow.arn
  iam_role_arn             = aws_iam_role.flow_log.arn

  tags = { Name = var.name }
}
