#!/usr/bin/env bash
# Four ways to fine-tune for 97 subgroups, then a table.
#
#   experiments/finetune_methods.sh runs/methods
#
# Needs the pretraining of `make quickstart`.
set -euo pipefail
out="${1:?usage: $0 FOLDER}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="$here/../.venv/bin"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

methods=(probe lora last_block full)
for method in "${methods[@]}"; do
  "$bin/mmjax" train --config="$here/../configs/finetune/classify.py:$method" \
    --workdir="$out/$method"
done
"$bin/python" "$here/finetune_methods.py" "${methods[@]/#/$out/}"
