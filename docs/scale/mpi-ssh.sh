#!/bin/bash
# One training with a process on each machine: docs/scale/mpi-ssh.sh runs/sst2 train.toml host1 host2 host3 host4
# Run it in a folder that has the same path on all machines, with the same program, Open MPI, model and data. ssh must not ask for a
# password. The file needs gradient_accumulation = 4 (the number of machines), or a multiple of it. THREADS is the number of threads of
# each process. If a machine or the connection fails, start the script again, and it goes on.
set -eu
out=$1 file=$2
shift 2
count=$#
hosts=$(IFS=,; echo "$*")
if [ -e "$out/checkpoints" ]; then
    begin=(--resume "$out")
else
    begin=(--config "$file" --out "$out" --overwrite)
fi
# The first machine has the run, so it should be this one.
exec mpirun -np "$count" --host "$hosts" --bind-to none --mca odls_base_sigkill_timeout 30 \
    mtlora train "${begin[@]}" --threads "${THREADS:-8}"
