#!/bin/sh
# Starts a Python worker with the packages beside this file and none of the machine's.
# When the machine's memory ends, a worker goes before its TaskManager, whose adjustment it would inherit: Flink replaces it.
echo 500 2>/dev/null >/proc/self/oom_score_adj || true
home=$(dirname "$(dirname "$(readlink -f "$0")")")
export PYTHONPATH="$home/site-packages" PYTHONNOUSERSITE=1
exec python3.11 -m runners.flink.worker "$@"
