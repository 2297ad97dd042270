r"""The quickstart's pretraining with another fusion; for comparisons.

mmjax train --config=configs/pretrain/fusion.py:cross_attention --workdir=W

`experiments/fusion.sh` runs them all, 4 min each on 2 CPU cores; see
`experiments/fusion.md` for what came out. Needs the tokenizer of
`make quickstart`.
"""

import importlib.util
from pathlib import Path

import ml_collections as mlc

QUICKSTART = Path(__file__).resolve().parents[1] / "quickstart/pretrain.py"
# Two layers each; those of a modality's own are as wide as shared ones.
SIZE = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
FUSIONS = dict(
  joint=dict(name="joint", size=SIZE),
  multiway=dict(name="joint", size=SIZE, multiway=True, fused_layers=1),
  cross_attention=dict(name="cross_attention", size=SIZE),
  bottleneck=dict(name="bottleneck", size=SIZE, num_tokens=4),
)


def get_config(arg: str = "joint") -> mlc.ConfigDict:
  """`arg` is one of `FUSIONS`."""
  c = _quickstart()
  c.stage = f"fusion {arg}"
  c.model.fusion = FUSIONS[arg]
  # Fusion is between what is masked: no contrast.
  c.tasks = dict(
    main=dict(
      objectives=dict(
        mlm=dict(name="masked_lm"),
        vtp=dict(name="vision_token_prediction"),
      )
    )
  )
  c.data.image.second = ""
  c.train.num_steps = 400
  c.log.evaluate_at_end = True
  c.evaluators = {
    name: dict(name="loss", data=dict(split=name))
    for name in ("unseen_artist", "unseen_concept")
  }
  return c


def _quickstart():
  spec = importlib.util.spec_from_file_location("quickstart", QUICKSTART)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()
