#!/bin/bash
# One training on four processes: sbatch docs/scale/mpi-slurm.sh /shared/runs/sst2 train.toml
# The file needs gradient_accumulation = 4, or a multiple of it. A job that is started again goes on with the run.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
# For one process a GPU: --ntasks-per-node=2 --gpus-per-node=2. Each process of a node takes another one.
# SIGTERM comes two minutes before the time is over, to all processes: the run is then saved.
#SBATCH --signal=TERM@120
set -eu
out=$1 file=$2
if [ -e "$out/checkpoints" ]; then
    begin=(--resume "$out")
else
    begin=(--config "$file" --out "$out" --overwrite)
fi
# If a process dies, the others must not wait for it. Where Slurm was built without PMIx: mpirun in place of srun.
exec srun --mpi=pmix --kill-on-bad-exit=1 mtlora train "${begin[@]}" --threads "${SLURM_CPUS_PER_TASK:-1}"
