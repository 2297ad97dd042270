#!/usr/bin/env bash
# Each objective alone, small and short, then a table.
#
#   experiments/objectives.sh runs/objectives [NAME...]
#
# Needs the tokenizer and the pretraining of `make quickstart`.
set -euo pipefail
out="${1:?usage: $0 FOLDER [NAME...]}"
shift
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="$here/../.venv/bin"
config="$here/../configs/pretrain/objective.py"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

if [ $# -eq 0 ]; then
  mapfile -t names < <("$bin/python" -c "
import runpy
print(*runpy.run_path('$config')['OBJECTIVES'], sep='\n')")
  set -- "${names[@]}"
fi
for name in "$@"; do
  "$bin/mmjax" train --config="$config:$name" --workdir="$out/$name"
done
"$bin/python" "$here/first_and_last.py" "${@/#/$out/}"
