#!/usr/bin/env bash
# The role is the first argument:
#   jobmanager, taskmanager   Flink's process; arguments after it are Flink's (-D key=value)
#   launch                    event-trigger run --runner=FlinkRunner, with the options that follow
#   page                      event-trigger ui, for other machines: it needs --token
#   anything else             a program with its arguments, as: event-trigger rules check /rules
# FLINK_PROPERTIES has further settings of Flink, one "key: value" a line. The name of this file and the first two
# roles are those that the Flink Kubernetes Operator starts in standalone mode.
set -euo pipefail

[[ $# -gt 0 ]] || set -- --help
role=$1

# What a program says of a folder that it cannot write is a page long, or comes when the first file is needed.
require_room() {
  local folder error
  for folder in "$@"; do
    if ! error=$({ head -c 1048576 /dev/zero >"$folder/.room-$$"; } 2>&1); then
      rm -f "$folder/.room-$$" 2>/dev/null || true
      echo "user $(id -u) cannot write to $folder (${error##*: }); allowed: a volume or a tmpfs with room for this user or group 0" >&2
      exit 1
    fi
    rm -f "$folder/.room-$$"
  done
}

case $role in
  jobmanager | taskmanager) require_room /tmp /data ;;
  launch | page) require_room /tmp ;;
esac

# Any user will do, as OpenShift chooses one. Hadoop's S3 client and others ask for its name, which /etc/passwd has not.
if ! id -un >/dev/null 2>&1 && [[ -w /tmp ]]; then
  echo "flink:x:$(id -u):$(id -g)::/data:/usr/sbin/nologin" >/tmp/passwd
  export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/etc/group
fi

case $role in
  jobmanager | taskmanager)
    shift
    properties=()
    while IFS= read -r line; do
      [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
      if [[ ! $line =~ ^[[:space:]]*([A-Za-z0-9._-]+):[[:space:]]+(.*[^[:space:]])[[:space:]]*$ ]]; then
        echo "FLINK_PROPERTIES: '$line' is no setting; allowed: 'key: value'" >&2
        exit 2
      fi
      properties+=(-D "${BASH_REMATCH[1]}=${BASH_REMATCH[2]}")
    done <<<"${FLINK_PROPERTIES:-}"
    mkdir -p "$FLINK_LOG_DIR" /data/tmp /data/rocksdb
    exec flink-node "$role" "${properties[@]}" "$@"
    ;;
  launch) exec event-trigger run --runner=FlinkRunner "${@:2}" ;;
  page) exec event-trigger ui --address=0.0.0.0 "${@:2}" ;;
  -*) exec event-trigger "$@" ;;
esac
if ! command -v -- "$role" >/dev/null; then
  echo "'$role' is no role and no program; allowed: jobmanager, taskmanager, launch, page, or a program such as event-trigger" >&2
  exit 127
fi
exec "$@"
