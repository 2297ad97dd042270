#!/usr/bin/env bash
# The same data, objectives and steps with each way to fuse, then a table.
#
#   experiments/fusion.sh runs/fusion [STEPS]
#
# Needs the tokenizer of `make quickstart`.
set -euo pipefail
out="${1:?usage: $0 FOLDER [STEPS]}"
steps="${2:-400}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

for fusion in joint multiway cross_attention bottleneck; do
  "$here/../.venv/bin/mmjax" train \
    --config="$here/../configs/pretrain/fusion.py:$fusion" \
    --workdir="$out/$fusion" --config.train.num_steps="$steps"
done
"$here/../.venv/bin/python" "$here/compare.py" "$out"/*
