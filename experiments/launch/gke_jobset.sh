#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, as a JobSet.
#
#   bash experiments/launch/gke_jobset.sh --image=IMAGE --bucket=BUCKET \
#     --accelerator=tpu-v5-lite-podslice --topology=4x4 --hosts=4 --chips=4 \
#     --config=configs/quickstart/pretrain.py --workdir=runs/pretrain
#
# --image=IMAGE    a container with this checkout, mmjax and jax for TPUs
# --bucket=BUCKET  mounted by gcsfuse; the workdir is in it, if it is no URL
# --hosts=N        pods of a slice; --chips=N of each; --slices=N (1)
# --name=NAME      of the JobSet (mmjax); --restarts=N (3)
# --dry_run        only print the JobSet: works without kubectl
# Expects: kubectl at the cluster, with JobSet and the gcsfuse driver.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=experiments/launch/flags.sh
source "$here/flags.sh"

# shellcheck disable=SC2034  # Read by name, below.
name=mmjax image="" bucket="" accelerator="" topology="" hosts="" chips=""
# shellcheck disable=SC2034
slices=1 restarts=3 config="" workdir=""
read_flags name image bucket accelerator topology hosts chips slices restarts \
  config workdir -- "$@"
need image bucket accelerator topology hosts chips config workdir
whole hosts chips slices restarts
if [ "${#rest[@]}" -gt 0 ]; then die "unknown flag ${rest[0]}"; fi

case "$workdir" in
  *://*) ;;
  *) workdir="/bucket/$workdir" ;;
esac

filled="$(cat "$here/gke_jobset.yaml")"
for variable in name image bucket accelerator topology hosts chips slices \
  restarts config workdir; do
  filled="${filled//\$\{${variable^^}\}/${!variable}}"
done
filled="${filled//\$\{PROCESSES\}/$((hosts * slices))}"
if [ -n "$dry_run" ]; then
  printf '%s\n' "$filled"
else
  printf '%s\n' "$filled" | kubectl apply --filename=-
fi
