#!/usr/bin/env bash
# The quickstart once per seed, then mean and spread of every figure.
#
#   experiments/quickstart_seeds.sh runs/seeds 0 1 2
set -euo pipefail
out="${1:?usage: $0 FOLDER SEED...}"
shift
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mmjax="$here/../.venv/bin/mmjax"
configs="$here/../configs/quickstart"
# Huge pages: see the Makefile.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

for seed in "$@"; do
  runs="$out/seed_$seed"
  "$mmjax" train --config="$configs/tokenizer.py" --workdir="$runs/tokenizer" \
    --config.train.seed="$seed"
  "$mmjax" train --config="$configs/pretrain.py" --workdir="$runs/pretrain" \
    --config.train.seed="$seed" \
    --config.init.from_checkpoint="$runs/tokenizer" \
    --config.log.evaluate_at_end=true
  "$mmjax" train --config="$configs/finetune.py" --workdir="$runs/finetune" \
    --config.train.seed="$seed" \
    --config.init.from_checkpoint="$runs/pretrain" \
    --config.log.evaluate_at_end=true
done
"$here/../.venv/bin/python" "$here/summarize.py" "$out"/seed_*
