#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU VM slice.
#
#   bash experiments/launch/tpu_pod.sh --tpu=NAME --zone=us-central2-b \
#     --config=configs/quickstart/pretrain.py --workdir=/mnt/shared/pretrain
#
# --tpu=NAME --zone=ZONE  the slice
# --workers=N    its hosts; asked of gcloud if left out
# --folder=DIR   of the checkout on each worker (mmjax)
# --setup        install there first: make install, then jax for TPUs
# --dry_run      only print the command: works without gcloud
# Other flags go to `mmjax train`. Expects: gcloud, logged in; on each worker
# a checkout, and a workdir that all of them see: a URL (gs://, s3://), or a
# folder in a Filestore or gcsfuse mount. jax finds the processes by the slice's metadata.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=experiments/launch/flags.sh
source "$here/flags.sh"

tpu="" zone="" config="" workdir="" workers="" folder=mmjax setup=""
read_flags tpu zone config workdir workers folder setup -- "$@"
need tpu zone config workdir
if [ -z "$workers" ]; then
  if [ -n "$dry_run" ]; then
    workers=1
  else
    workers="$(gcloud compute tpus tpu-vm describe "$tpu" --zone="$zone" \
      --format='value(networkEndpoints.ipAddress)' | tr ';' '\n' | wc -l)"
  fi
fi
whole workers

on_all() {
  run gcloud compute tpus tpu-vm ssh "$tpu" "--zone=$zone" --worker=all \
    "--command=$1"
}

if [ -n "$setup" ]; then
  on_all "cd $(printf %q "$folder") && make install && \
.venv/bin/python -m pip install -e '.[tpu]'"
fi
flags=("--config=$config" "--workdir=$workdir" "--processes=$workers"
  "${rest[@]}")
on_all "cd $(printf %q "$folder") && .venv/bin/python -m mmjax train$(
  printf ' %q' "${flags[@]}"
)"
