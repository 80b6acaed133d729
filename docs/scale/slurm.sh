#!/bin/bash
# A sweep as a SLURM array: sbatch docs/scale/slurm.sh recipes/first.toml /shared/sweeps/first
#SBATCH --job-name=sweep
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
# SIGTERM comes two minutes before the time is over (B: to this script, which the program replaces below): the run is then
# saved, and a later job goes on with it.
#SBATCH --signal=B:TERM@120
set -eu
# Each run has as many threads as the sweep's file says (`threads`): make --cpus-per-task the same number. Without it in the file, a
# run has as many threads as its task has cores.
threads="--threads ${SLURM_CPUS_PER_TASK:-1}"
if grep -q '^threads' "$1"; then threads=; fi
# Each task begins with its part of the runs (SLURM_ARRAY_TASK_ID), and then helps with the others. At the end it waits
# for the runs of other tasks, and takes over those of a task that dies. With --no-wait it would end instead, even if final runs
# are only waiting for the last tuning runs.
exec mtlora sweep run "$1" --out "$2" $threads
