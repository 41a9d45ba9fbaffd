#!/bin/sh
# An evaluation on all hosts of a TPU VM (a slice, or "pod"): tpu.sh NAME ZONE FOLDER [OPTION]...
# FOLDER: of a disk that all hosts have mounted; the options are those of `jaxood evaluate`.
set -eu
name=$1 zone=$2 folder=$3
shift 3
on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"
}
on_all_hosts "pip install --quiet jaxood 'jax[tpu]'"
on_all_hosts "cd $folder && jaxood evaluate --distributed --output runs/evaluate $*"
