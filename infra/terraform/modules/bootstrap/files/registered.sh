#!/usr/bin/env bash
# Waits until this node takes part in the cluster and then completes its launch: until that a roll-out replaces no other
# node, and Auto Scaling takes away a node that never gets here.
set -euo pipefail

export AWS_REGION AWS_DEFAULT_REGION="$AWS_REGION"

registered() {
  case $ROLE in
    jobmanager) curl -fs --max-time 10 --output /dev/null http://127.0.0.1:8081/overview ;; # a standby asks the leader
    taskmanager) grep -qs 'Successful registration at resource manager' /var/log/flink/taskmanager.log ;;
  esac
}

until registered; do sleep 5; done
echo "the $ROLE has registered"
until error=$(aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE \
  --instance-id "$(cat /etc/event-trigger/instance-id)" --auto-scaling-group-name "$GROUP_NAME" \
  --lifecycle-hook-name registered 2>&1); do
  # After a reboot, or for the first nodes of a group, which are older than its hook.
  if [[ $error == *"No active Lifecycle Action"* ]]; then
    echo "no launch to complete"
    exit 0
  fi
  echo "the launch cannot be completed yet: $error" >&2
  sleep 30
done
echo "launch completed"
