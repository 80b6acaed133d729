#!/bin/bash
# A sweep on machines that share a folder: docs/scale/ssh.sh recipes/first.toml runs/first host1 host2 host3
# Run it in that folder, which must have the same path on all machines.
set -eu
file=$1 out=$2
shift 2
count=$# index=0 here=$(pwd) failed=0
hosts=("$@") processes=()
for host in "$@"; do
    # The connection keeps the process: if it breaks, start the script again, and it goes on.
    ssh "$host" "cd $(printf %q "$here") && mtlora sweep run $(printf %q "$file") --out $(printf %q "$out") --shard $index/$count" \
        > "sweep-$host.log" 2>&1 &
    processes+=($!)
    index=$((index + 1))
done
for index in "${!hosts[@]}"; do
    if ! wait "${processes[$index]}"; then
        echo "${hosts[$index]} failed: see sweep-${hosts[$index]}.log, and start this script again" >&2
        failed=1
    fi
done
mtlora sweep status "$out"
exit $failed
