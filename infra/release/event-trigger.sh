#!/bin/sh
# The command line of event-trigger, with the packages beside this file and none of the machine's.
home=$(dirname "$(dirname "$(readlink -f "$0")")")
export PYTHONPATH="$home/site-packages" PYTHONNOUSERSITE=1
exec python3.11 -m pipeline "$@"
