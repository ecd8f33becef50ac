# Renders the user data of a node: a cloud-config that writes files, installs packages and starts one boot unit. The unit
# prepares volumes, fetches artifacts, writes Flink's configuration and starts the node's service; it runs on every boot.

locals {
  common_files = {
    "/usr/local/sbin/event-trigger-boot" = {
      content = file("${path.module}/files/boot.sh")
      mode    = "0755"
    }
    "/etc/systemd/system/event-trigger-boot.service" = {
      content = file("${path.module}/files/event-trigger-boot.service")
    }
    "/etc/event-trigger/node.env" = {
      content = templatefile("${path.module}/templates/node.env.tftpl", {
        role            = var.role
        service         = var.service
        region          = var.region
        artifact_bucket = var.artifact_bucket
        tls_parameter   = var.tls_parameter == null ? "" : var.tls_parameter
        kms_key_arn     = var.kms_key_arn == null ? "" : var.kms_key_arn
        group_name      = var.group_name == null ? "" : var.group_name

        zookeeper_parameters = var.zookeeper_parameters
      })
    }
    "/etc/event-trigger/volumes" = {
      content = join("", [for volume in var.volumes : "${volume.device} ${volume.mount} ${volume.label}\n"])
    }
    "/etc/event-trigger/artifacts" = {
      content = join("", [for artifact in var.artifacts : "${artifact.key} ${artifact.sha256} ${artifact.directory}\n"])
    }
    "/etc/systemd/journald.conf.d/event-trigger.conf" = {
      content = file("${path.module}/files/journald.conf")
    }
  }

  group_files = var.group_name == null ? {} : {
    "/usr/local/sbin/event-trigger-registered" = {
      content = file("${path.module}/files/registered.sh")
      mode    = "0755"
    }
    "/etc/systemd/system/event-trigger-registered.service" = {
      content = file("${path.module}/files/event-trigger-registered.service")
    }
  }

  files = merge(local.common_files, local.group_files, { for path, file in var.files : path => file if file.content != null })

  cloud_config = {
    package_update = false
    packages       = var.packages
    # Sorted by path, so that the same input gives the same user data.
    write_files = [
      for path in sort(keys(local.files)) : {
        path        = path
        content     = local.files[path].content
        permissions = try(local.files[path].mode, "0644")
      }
    ]
    runcmd = [
      # Not masked: tmp.mount. The volume lies over it, and services that use /tmp could not be started again without it.
      ["systemctl", "daemon-reload"],
      ["systemctl", "enable", "event-trigger-boot.service"],
      ["systemctl", "start", "--no-block", "event-trigger-boot.service"],
    ]
  }

  user_data = "#cloud-config\n${yamlencode(local.cloud_config)}"
}
