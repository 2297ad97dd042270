r"""One billion parameters: text and pictures on v5p.

mmjax plan --config=configs/pretrain/one_billion.py --topology=v5p:4x4x4
mmjax train --config=configs/pretrain/one_billion.py --workdir=runs/one_billion

The objectives and the stand-ins for data are those of joint_l16.py. 16,384
pairs a step, 256 a chip of v5p:4x4x4. What that costs is planned, not run: see
`experiments/plans/one_billion.md`.
"""

import importlib.util
from pathlib import Path

import ml_collections as mlc

JOINT = Path(__file__).resolve().parent / "joint_l16.py"
# Heads of 128 channels: half the softmax of 64, and as wide as a TPU's unit.
IMAGE = dict(embed_dim=1536, num_layers=24, num_heads=12, mlp_dim=6144)
LARGE = dict(base="L", num_heads=8)


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = _joint()
  c.stage = "1 B parameters"
  model = c.model
  for part, size in (
    (model.encoders.image, IMAGE),
    (model.encoders.text, LARGE),
    (model.fusion, dict(LARGE, num_layers=6)),
  ):
    del part["size"]  # A name: not to be replaced by another type.
    part.size = size
  return c


def _joint():
  spec = importlib.util.spec_from_file_location("joint_l16", JOINT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()
