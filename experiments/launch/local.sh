#!/usr/bin/env bash
# Trains on all devices of this machine, in one process.
#
#   bash experiments/launch/local.sh --config=configs/quickstart/tokenizer.py \
#     --workdir=runs/tokenizer
#
# --steps=N     this many steps
# --dry_run     only print the command
# Other flags go to `mmjax train`. Expects: the .venv of `make install`, or
# $PYTHON with mmjax.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=experiments/launch/flags.sh
source "$here/flags.sh"
cd "$here/../.."

config="" workdir="" steps=""
read_flags config workdir steps -- "$@"
need config workdir
if [ -n "$steps" ]; then
  whole steps
  rest+=("--config.train.num_steps=$steps")
fi
run "${PYTHON:-.venv/bin/python}" -m mmjax train "--config=$config" \
  "--workdir=$workdir" --processes=1 "${rest[@]}"
