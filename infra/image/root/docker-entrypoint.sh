#!/usr/bin/env bash
# The role is the first argument:
#   jobmanager, taskmanager   Flink's process; arguments after it are Flink's (-D key=value)
#   launch                    event-trigger run --runner=FlinkRunner, with the options that follow
#   page                      event-trigger ui, for other machines: it needs --token
#   anything else             a program with its arguments, as: event-trigger rules check /rules
# FLINK_PROPERTIES has further settings of Flink, one "key: value" a line. The name of this file and the first two
# roles are those that the Flink Kubernetes Operator starts in standalone mode.
set -euo pipefail

role=${1:---help}
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
