# A role and instance profile per node kind. Each may use its own prefix of a bucket, the cluster's key, and what Session
# Manager and the CloudWatch agent need; AWS's managed policies would also give every parameter and every log group.

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.name

  parameter_arns    = "arn:aws:ssm:${local.region}:${local.account}:parameter"
  tls_parameter_arn = "${local.parameter_arns}${var.tls_parameter_name}"
  # A JobManager's password is no TaskManager's: who has that node cannot name another leader.
  zookeeper_arns = [for user in ["jobmanager", "taskmanager"] : "${local.parameter_arns}${var.zookeeper_parameters}/${user}"]
  flink_buckets  = [var.bucket_arns.checkpoints, var.bucket_arns.savepoints]

  nodes = {
    zookeeper   = { flink = false, creates = local.zookeeper_arns, zookeeper = ["jobmanager", "taskmanager"], secrets = [] }
    jobmanager  = { flink = true, creates = [local.tls_parameter_arn], zookeeper = ["jobmanager"], secrets = [] }
    taskmanager = { flink = true, creates = [], zookeeper = ["taskmanager"], secrets = tolist(var.secret_arns) }
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "node" {
  for_each = local.nodes

  statement {
    sid       = "Artifacts"
    actions   = ["s3:GetObject"]
    resources = ["${var.bucket_arns.artifacts}/${var.artifact_prefix}/*"]
  }

  statement {
    sid       = "Key"
    actions   = concat(["kms:Decrypt"], each.value.flink ? ["kms:GenerateDataKey"] : [], length(each.value.creates) > 0 ? ["kms:Encrypt"] : [])
    resources = [var.kms_key_arn]
  }

  # The actions that Session Manager needs; they know no resources.
  statement {
    sid = "SessionManager"
    actions = [
      "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["arn:aws:logs:${local.region}:${local.account}:log-group:${var.log_group_name}:*"]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [var.metrics_namespace]
    }
  }

  dynamic "statement" {
    for_each = each.value.flink ? [1] : []

    content {
      sid       = "StateObjects"
      actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      resources = [for arn in local.flink_buckets : "${arn}/${var.state_prefix}/*"]
    }
  }

  dynamic "statement" {
    for_each = each.value.flink ? [1] : []

    content {
      sid       = "StateList"
      actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
      resources = local.flink_buckets

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = [var.state_prefix, "${var.state_prefix}/*"]
      }
    }
  }

  # One key pair for the whole cluster, which the first JobManager makes.
  dynamic "statement" {
    for_each = each.value.flink ? [1] : []

    content {
      sid       = "InternalTls"
      actions   = ["ssm:GetParameter"]
      resources = [local.tls_parameter_arn]
    }
  }

  statement {
    sid       = "ZooKeeperLogins"
    actions   = ["ssm:GetParameter"]
    resources = [for user in each.value.zookeeper : "${local.parameter_arns}${var.zookeeper_parameters}/${user}"]
  }

  # PutParameter without Overwrite cannot replace what is there, so a node gets no more than that in its policy either.
  dynamic "statement" {
    for_each = length(each.value.creates) > 0 ? [1] : []

    content {
      sid       = "CreateParameters"
      actions   = ["ssm:PutParameter"]
      resources = each.value.creates

      condition {
        test     = "StringNotEquals"
        variable = "ssm:Overwrite"
        values   = ["true"]
      }
    }
  }

  dynamic "statement" {
    for_each = each.value.flink ? [1] : []

    content {
      sid     = "Lifecycle"
      actions = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
      resources = [
        "arn:aws:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${var.name}-${each.key}",
      ]
    }
  }

  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [1] : []

    content {
      sid       = "Secrets"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = each.value.secrets
    }
  }

  dynamic "statement" {
    for_each = each.value.flink && length(var.prometheus_arns) > 0 ? [1] : []

    content {
      sid       = "Prometheus"
      actions   = ["aps:RemoteWrite"]
      resources = var.prometheus_arns
    }
  }

  dynamic "statement" {
    for_each = concat(each.value.flink ? var.msk_statements : [], each.key == "jobmanager" ? var.msk_operator_statements : [])

    content {
      sid       = statement.value.sid
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.nodes

  name               = "${var.name}-${each.key}"
  description        = "${each.key} instances of ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "this" {
  for_each = local.nodes

  name   = "node"
  role   = aws_iam_role.this[each.key].name
  policy = data.aws_iam_policy_document.node[each.key].json
}

resource "aws_iam_instance_profile" "this" {
  for_each = local.nodes

  name = aws_iam_role.this[each.key].name
  role = aws_iam_role.this[each.key].name
}
