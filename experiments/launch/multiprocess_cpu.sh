#!/usr/bin/env bash
# Trains in several processes on the CPU of this machine: a pod in small.
#
#   bash experiments/launch/multiprocess_cpu.sh --processes=2 \
#     --config=configs/quickstart/pretrain.py --steps=20
#
# --processes=N  how many (2)
# --devices=N    of each process (1)
# --steps=N      this many steps
# --workdir=DIR  (runs/multiprocess_cpu)
# --elastic      if a process is killed, go on with those that are left
# --dry_run      only print the commands
# Other flags go to `mmjax train`. SIGTERM or Ctrl-C: all save the same step.
# Exit status: 0, or that of the first process that failed. Expects: the .venv
# of `make install`, or $PYTHON with mmjax.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=experiments/launch/flags.sh
source "$here/flags.sh"
cd "$here/../.."

config="" workdir=runs/multiprocess_cpu steps="" processes=2 devices=1
elastic="" fewer=""
read_flags config workdir steps processes devices elastic -- "$@"
need config
whole processes devices
if [ -n "$steps" ]; then
  whole steps
  rest+=("--config.train.num_steps=$steps")
fi
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices"

free_port() {
  "${PYTHON:-.venv/bin/python}" -c '
import socket
with socket.socket() as s:
  s.bind(("localhost", 0))
  print(s.getsockname()[1])'
}

pids=()
asked=""

# shellcheck disable=SC2329  # Called by the trap.
# Its processes have not the terminal's Ctrl-C: one word to all, here.
stop() {
  asked=yes
  if [ "${#pids[@]}" -gt 0 ]; then
    kill -TERM "${pids[@]}" 2>/dev/null || true
  fi
}

# start COUNT: sets `status` (of the first that failed) and `lost` (killed).
start() {
  local count="$1" port=PORT i code left
  [ -n "$dry_run" ] || port="$(free_port)"
  status=0 lost=0 pids=()
  for ((i = 0; i < count; i++)); do
    local command=("${PYTHON:-.venv/bin/python}" -m mmjax train
      "--config=$config" "--workdir=$workdir" "--coordinator=localhost:$port"
      "--processes=$count" "--process=$i" "${rest[@]}")
    if [ "$count" = 1 ]; then
      command=("${PYTHON:-.venv/bin/python}" -m mmjax train "--config=$config"
        "--workdir=$workdir" --processes=1 "${rest[@]}")
    fi
    if [ -n "$dry_run" ]; then
      run "${command[@]}"
      continue
    fi
    # Process substitution, so that $! is the process and not its `sed`.
    "${command[@]}" </dev/null > >(sed -u "s/^/[$i] /") \
      2> >(sed -u "s/^/[$i] /" >&2) &
    pids+=("$!")
  done
  left=("${pids[@]}")
  while [ "${#left[@]}" -gt 0 ]; do
    local pid="${left[0]}"
    code=0
    wait "$pid" || code=$?
    # A signal to this script ends `wait`, not the process.
    if kill -0 "$pid" 2>/dev/null; then continue; fi
    left=("${left[@]:1}")
    if [ "$code" -ne 0 ] && [ "$status" -eq 0 ]; then status="$code"; fi
    if [ "$code" -eq 137 ]; then lost=$((lost + 1)); fi
  done
}

trap stop TERM INT
while true; do
  start "$processes"
  if [ "$status" -eq 0 ] || [ -n "$asked" ] || [ -z "$elastic" ]; then break; fi
  # Only if a process was lost, or its fewer successors don't divide the batch.
  if [ "$lost" -eq 0 ]; then
    if [ -z "$fewer" ] || [ "$status" -ne 2 ]; then break; fi
  fi
  fewer=yes
  processes=$((processes - (lost > 0 ? lost : 1)))
  [ "$processes" -ge 1 ] || break
  echo "${0##*/}: going on with $processes process(es)" >&2
done
exit "$status"
