#!/usr/bin/env bash
# Writes the plans of this folder again; no TPU, but libtpu (mmjax[tpu]).
#
# usage: experiments/plans/run.sh [NAME...]   all of them by default
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/plans

plan() {  # NAME CONFIG FLAG...
  local name=$1 config=$2
  shift 2
  mmjax plan --config="configs/pretrain/$config.py" \
    --json="$here/$name.json" --markdown="$here/$name.md" "$@"
}

all=(joint_l16 one_billion weak_scaling two_slices h100 joint_l16_sweep)
for name in "${@:-${all[@]}}"; do
  case $name in
    joint_l16) plan "$name" joint_l16 --topology=v5e:16x16 ;;
    one_billion) plan "$name" one_billion --topology=v5p:4x4x4 ;;
    weak_scaling) # 64 pairs a chip, 16 to 256 chips.
      plan "$name" joint_l16 --topology=v5e:4x4,v5e:8x8,v5e:16x16 ;;
    two_slices) # 512 chips; replicas across, parameters split within.
      plan "$name" joint_l16 --topology=v5e:16x16 --slices=2 \
        --config.mesh.replica=2 --config.train.batch_size=32768 ;;
    h100) # By formula, 64 pairs a chip.
      plan "$name" joint_l16 --topology=h100:8 \
        --config.mesh.fsdp=8 --config.train.batch_size=512 ;;
    joint_l16_sweep)
      plan "$name" joint_l16 --topology=v5e:16x16 --sweep --fsdp=16,32 \
        --remat=dots,full --batch_size=16384 ;;
    *)
      echo "unknown plan '$name'; known: ${all[*]}" >&2
      exit 2
      ;;
  esac
done
