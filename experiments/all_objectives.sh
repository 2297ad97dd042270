#!/usr/bin/env bash
# The mix of all objectives, and without each of them, at equal steps.
#
#   experiments/all_objectives.sh runs/all_objectives [STEPS]
#
# Needs the tokenizer of `make quickstart`.
set -euo pipefail
out="${1:?usage: $0 FOLDER [STEPS]}"
steps="${2:-300}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

for without in "" mlm vtp contrastive pictures matching captioning \
  matching+captioning; do
  "$here/../.venv/bin/mmjax" train \
    --config="$here/../configs/starter/pretrain_all_objectives.py${without:+:without_$without}" \
    --workdir="$out/${without:+without_}${without:-all}" \
    --config.train.num_steps="$steps"
done
"$here/../.venv/bin/python" "$here/compare.py" "$out"/*
