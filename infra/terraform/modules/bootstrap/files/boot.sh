#!/usr/bin/env bash
# Prepares this node and starts its service. Runs as root on every boot and may be run again at any time: what is done
# already is checked, not repeated. Input is in /etc/event-trigger, written by cloud-init.
set -euo pipefail

readonly CONFIG=/etc/event-trigger
readonly METADATA=http://169.254.169.254/latest
readonly DEADLINE_S=900 # for what another node or AWS may still be busy with

# shellcheck source=/dev/null
source "$CONFIG/node.env"
export AWS_REGION AWS_DEFAULT_REGION="$AWS_REGION"

say() { echo "event-trigger-boot: $*"; }
die() { say "$*" >&2; exit 1; }

# IMDSv2 only: a session token first.
metadata() {
  local token
  token=$(curl -fsS --retry 5 --retry-connrefused -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token")
  curl -fsS --retry 5 -H "X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/$1"
}

# The one device that a path or glob names. It may appear a while after boot; several links to it are fine.
find_device() {
  local pattern=$1 found deadline=$((SECONDS + 300))
  while true; do
    # shellcheck disable=SC2086  # the glob is wanted
    found=$(for path in $pattern; do if [ -b "$path" ]; then readlink -f "$path"; fi; done | sort -u)
    [ -n "$found" ] && break
    [ "$SECONDS" -lt "$deadline" ] || die "no block device $pattern after 300 s"
    sleep 2
  done
  [ "$(wc -l <<<"$found")" -eq 1 ] || die "$pattern fits several devices: ${found//$'\n'/ }"
  echo "$found"
}

# What is mounted on a mount point, the uppermost if there are several.
mounted_on() { findmnt --noheadings --output SOURCE --mountpoint "$1" | tail -n 1; }

prepare_volume() {
  local pattern=$1 mount=$2 label=$3 device
  device=$(find_device "$pattern")
  # Only a device without any signature is formatted; a retained volume keeps what is on it.
  if [ -z "$(wipefs --noheadings "$device")" ]; then
    say "formatting $device for $mount"
    mkfs.xfs -q -L "$label" "$device"
  fi
  # That something is mounted there proves nothing: /tmp may be a tmpfs. The device has to be the one.
  if [ "$(mounted_on "$mount" || true)" != "$device" ]; then
    mkdir -p "$mount"
    mount -t xfs -o noatime,nodev,nosuid "$device" "$mount"
  fi
  [ "$(mounted_on "$mount")" = "$device" ] || die "$mount is on $(mounted_on "$mount"), not on $device"
  say "$mount is $device"
}

add_user() {
  id "$1" >/dev/null 2>&1 || useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin "$1"
}

prepare_directories() {
  add_user flink
  case $ROLE in
    zookeeper)
      install -d -o flink -g flink -m 0750 /data/zookeeper /data/zookeeper/data
      ;;
    jobmanager)
      chmod 1777 /tmp
      install -d -o flink -g flink -m 0755 /var/log/flink
      ;;
    taskmanager)
      chmod 1777 /tmp
      add_user event-trigger-worker
      install -d -o flink -g flink -m 0755 /var/log/flink
      install -d -o flink -g flink -m 0750 /data/rocksdb
      ;;
  esac
}

# The journal is kept on the log volume.
move_journal() {
  mountpoint -q /var/log/flink || return 0
  if ! mountpoint -q /var/log/journal; then
    install -d -g systemd-journal -m 2755 /var/log/flink/journal /var/log/journal
    mount --bind /var/log/flink/journal /var/log/journal
  fi
  systemctl restart systemd-journald
  journalctl --flush
}

fetch_artifact() {
  local key=$1 sha256=$2 directory=$3 archive part
  if [ "$(cat "$directory/.sha256" 2>/dev/null || true)" = "$sha256" ]; then
    say "$directory is $key already"
    return
  fi
  archive=$(mktemp /var/tmp/artifact.XXXXXX)
  until aws s3 cp --only-show-errors "s3://$ARTIFACT_BUCKET/$key" "$archive"; do
    [ "$SECONDS" -lt "$DEADLINE_S" ] || die "s3://$ARTIFACT_BUCKET/$key cannot be fetched"
    sleep 10
  done
  if ! sha256sum --check --status <<<"$sha256  $archive"; then
    local found
    found=$(sha256sum "$archive" | cut -d ' ' -f 1)
    rm -f "$archive"
    die "s3://$ARTIFACT_BUCKET/$key has SHA-256 $found, expected $sha256"
  fi
  # Unpacked beside its place and moved there when it is whole.
  part=$directory.part
  rm -rf "$part"
  mkdir -p "$part"
  tar --extract --gzip --no-same-owner --file "$archive" --directory "$part"
  echo "$sha256" >"$part/.sha256"
  rm -rf "$directory"
  mv "$part" "$directory"
  rm -f "$archive"
  say "$directory is $key"
}

# What the cluster's nodes share and nobody else ever sees, neither Terraform nor its state, is in parameters. The first
# node that needs one makes it, PutParameter without --overwrite lets only one be the first, and everyone reads what is
# there. To standard output goes the value. $2 is empty, or writes a new value to the file that it is given.
parameter() {
  local name=$1 make=$2 work
  work=$(mktemp -d)
  until aws ssm get-parameter --name "$name" --with-decryption --query Parameter.Value --output text \
    >"$work/value" 2>"$work/error"; do
    [ "$SECONDS" -lt "$DEADLINE_S" ] || die "$name cannot be read: $(cat "$work/error")"
    if [ -n "$make" ] && grep -q ParameterNotFound "$work/error"; then
      "$make" "$work/new"
      if aws ssm put-parameter --name "$name" --type SecureString --key-id "$KMS_KEY_ARN" \
        --value "file://$work/new" >/dev/null 2>"$work/error"; then
        say "made $name" >&2
      else
        grep -q ParameterAlreadyExists "$work/error" || say "$name cannot be made: $(cat "$work/error")" >&2
      fi
    else
      sleep 5
    fi
  done
  cat "$work/value"
  rm -rf "$work"
}

new_password() { head -c 24 /dev/urandom | base64 | tr -d '+/=\n' >"$1"; }

# One key pair serves the whole cluster: Flink authenticates its processes to each other by it.
new_tls() {
  local java
  java=$(readlink -f "$(command -v java)") # keytool is beside it, on the PATH or not
  new_password "$1.password"
  "${java%/*}/keytool" -genkeypair -alias flink.internal -dname CN=flink.internal -validity 3650 -keyalg EC -groupname secp256r1 \
    -storetype PKCS12 -keystore "$1.p12" -storepass:file "$1.password" -keypass:file "$1.password" >&2
  printf '%s %s' "$(cat "$1.password")" "$(base64 -w 0 "$1.p12")" >"$1"
}

internal_tls() {
  local value make=
  [ "$ROLE" != jobmanager ] || make=new_tls
  value=$(parameter "$TLS_PARAMETER" "$make")
  TLS_PASSWORD=${value%% *}
  install -d -g flink -m 0750 /etc/flink/tls
  base64 -d <<<"${value#* }" | install -g flink -m 0640 /dev/stdin /etc/flink/tls/internal.p12
}

# ZooKeeper's nodes make the passwords of its users. Each kind of node of Flink can read its own only.
zookeeper_logins() {
  local module=org.apache.zookeeper.server.auth.DigestLoginModule jobmanager taskmanager own
  if [ "$ROLE" = zookeeper ]; then
    jobmanager=$(parameter "$ZOOKEEPER_PARAMETERS/jobmanager" new_password)
    taskmanager=$(parameter "$ZOOKEEPER_PARAMETERS/taskmanager" new_password)
    printf 'Server {\n  %s required\n  user_jobmanager="%s"\n  user_taskmanager="%s";\n};\n' \
      "$module" "$jobmanager" "$taskmanager" | install -g flink -m 0640 /dev/stdin /etc/zookeeper/jaas.conf
  else
    own=$(parameter "$ZOOKEEPER_PARAMETERS/$ROLE" "")
    printf 'Client {\n  %s required\n  username="%s"\n  password="%s";\n};\n' \
      "org.apache.flink.shaded.zookeeper3.$module" "$ROLE" "$own" \
      | install -g flink -m 0640 /dev/stdin /etc/flink/jaas.conf
  fi
}

# Flink's configuration: this node's settings, then the cluster's, then the release's (what local clusters run with too).
# Each is a line `key: "value"`; the first of a key counts.
configure_flink() {
  local address=$1 instance=$2 tls=security.ssl.internal store=/etc/flink/tls/internal.p12
  {
    echo "jobmanager.rpc.address: \"$address\""
    echo "jobmanager.bind-host: \"$address\""
    echo "taskmanager.host: \"$address\""
    echo "taskmanager.bind-host: \"$address\""
    echo "taskmanager.resource-id: \"$instance\""
    echo "$tls.keystore: \"$store\""
    echo "$tls.truststore: \"$store\""
    echo "$tls.keystore-password: \"$TLS_PASSWORD\""
    echo "$tls.key-password: \"$TLS_PASSWORD\""
    echo "$tls.truststore-password: \"$TLS_PASSWORD\""
    cat /etc/flink/cluster.yaml /opt/flink/conf/base.yaml
  } | awk -F ': ' '!seen[$1]++' | install -g flink -m 0640 /dev/stdin /etc/flink/config.yaml
}

main() {
  local address instance
  while read -r device mount label; do prepare_volume "$device" "$mount" "$label"; done <"$CONFIG/volumes"
  prepare_directories
  move_journal
  while read -r key sha256 directory; do fetch_artifact "$key" "$sha256" "$directory"; done <"$CONFIG/artifacts"
  address=$(metadata local-ipv4)
  instance=$(metadata instance-id)
  echo "$instance" >"$CONFIG/instance-id"
  zookeeper_logins
  if [ "$ROLE" = zookeeper ]; then
    # server.N=ADDRESS:…: the number of the line with this node's address.
    sed -n "s/^server\.\([0-9]*\)=$address:.*/\1/p" /etc/zookeeper/zoo.cfg >/data/zookeeper/data/myid
    [ -s /data/zookeeper/data/myid ] || die "$address is not among the servers of /etc/zookeeper/zoo.cfg"
  else
    internal_tls
    configure_flink "$address" "$instance"
  fi
  if [ -f "$CONFIG/prometheus.yaml" ]; then
    sed -i "s/INSTANCE-ID/$instance/" "$CONFIG/prometheus.yaml"
  fi
  if [ -f "$CONFIG/cloudwatch-metrics.json" ]; then
    /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl \
      -a fetch-config -m ec2 -s -c "file:$CONFIG/cloudwatch-metrics.json"
  fi
  # A service that is running keeps running; a unit that changed needs a new node anyway.
  # shellcheck disable=SC2086  # units are separated by spaces
  systemctl start --no-block $SERVICE
  say "ready: $ROLE $instance at $address starts $SERVICE"
}

main "$@"
