#!/usr/bin/env bash
# Distill on the nodes of a Slurm job: torchrun on each, one rank a GPU. The flags are those of
# distill; --output must lie on a file system that all nodes share. A job that is stopped or runs
# out of time goes on when the same line is submitted again.
#SBATCH --job-name=dfkd-edge
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" \
    -m dfkd_edge distill "$@"
