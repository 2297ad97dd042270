r"""The quickstart's pretraining with matching and captioning besides.

mmjax train --config=configs/starter/pretrain_all_objectives.py --workdir=W

610 steps take as long as the 780 of the quickstart, 7.5 min on 2 CPU cores, and
reach R@10 0.27 on the unseen artist against 0.31: it does not help retrieval.

With `:without_NAME` or `:without_NAME+NAME`, all but these; what each is worth
is in `experiments/all_objectives.md`. Needs the tokenizer of `make quickstart`.
"""

import importlib.util
from pathlib import Path

import ml_collections as mlc

QUICKSTART = Path(__file__).resolve().parents[1] / "quickstart/pretrain.py"
WITHOUT = "without_"


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is "" or "without_" and the names of objectives to leave out."""
  c = _quickstart()
  c.stage = f"all objectives {arg}".strip()
  light = dict(embed_dim=128, num_layers=1, num_heads=2, mlp_dim=512)
  c.model.decoders = dict(text=dict(name="text", size=light))
  # Masked views: the encoders run as often as without these two.
  objectives = dict(
    c.tasks.main.objectives.to_dict(),
    matching=dict(name="matching", weight=0.2, view="masked"),
    captioning=dict(name="captioning", weight=0.2, view="masked"),
  )
  if arg.startswith(WITHOUT):
    for name in arg.removeprefix(WITHOUT).split("+"):
      if name not in objectives:
        raise ValueError(f"{name!r} is none of {sorted(objectives)}.")
      del objectives[name]
  elif arg:
    raise ValueError(f"{arg!r}, expected '' or '{WITHOUT}NAME'.")
  c.tasks.main.objectives = objectives
  if "pictures" not in objectives:
    c.data.image.second = ""
  c.log.evaluate_at_end = True
  for name in ("masked", "concept", "probe"):  # Not what is compared.
    del c.evaluators[name]
  return c


def _quickstart():
  spec = importlib.util.spec_from_file_location("quickstart", QUICKSTART)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()
