#!/bin/sh
#SBATCH --job-name=jaxood
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --requeue
# A process a GPU. The options are those of `jaxood evaluate`: sbatch slurm.sh --suite NAME ...
set -eu
srun --kill-on-bad-exit=1 jaxood evaluate --distributed --output "runs/$SLURM_JOB_NAME" "$@"
