#!/bin/sh
# Exports the newest run, then climbs the ladder on labelled pictures. Exit code 3: the model lost more
# accuracy than allowed; 0: it may ship; anything else: the job itself is at fault.
# Usage: gate.sh PICTURES [TARGET] [MAX_DROP]
set -u
pictures=$1
target=${2:-jetson}
max_drop=${3:-0.01}

run=runs/latest
# a failed gate of export is kept, so that check can say on which pictures it failed
dfkd-edge export "$run" --target "$target" --data "$pictures" --max-drop "$max_drop" --output bundle --exist-ok --quiet
status=$?
if [ "$status" -ne 0 ] && [ "$status" -ne 3 ]; then
    exit "$status"
fi
dfkd-edge check bundle --data "$pictures" --max-drop "$max_drop" --json --quiet > check.json
status=$?
case $status in
    0) echo "gate passed" ;;
    3) echo "gate FAILED: bundle/report.html shows where" ;;
    *) echo "check itself failed with exit code $status" ;;
esac
exit "$status"
