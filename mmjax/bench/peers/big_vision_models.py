"""ViT and two towers of a checkout of big_vision, which no registry has."""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.bench import candidate
from mmjax.bench.candidate import NotInstalled, Tower, Work
from mmjax.bench.peers import batches, libraries
from mmjax.core import errors

Params = Any  # Nested dicts of arrays.


def make(work: Work, precision: str, option: str = "") -> "BigVisionStep":
  """Makes the step, with layers unrolled, which is faster than its scan.

  With "bfloat16" products are in bfloat16 (its `dtype_mm`).

  Args:
    work: a classifier, or two towers.
    precision: "float32" or "bfloat16".
    option: the folder of the checkout.

  Raises:
    NotInstalled: the checkout needs a library that is missing.
    UserError: no checkout there, or work of another kind.
  """
  builders = {"image_classification": _classifier, "contrastive": _two_towers}
  libraries.check_kind("big_vision", work, list(builders))
  if precision not in candidate.PRECISIONS:
    raise errors.unknown("precision", precision, candidate.PRECISIONS)
  checkout = Path(option).expanduser()
  if not option or not (checkout / "big_vision/models/vit.py").exists():
    raise errors.UserError(
      f"The peer big_vision needs a checkout of its repository, got "
      f"{option!r}, where big_vision/models/vit.py is not: "
      f"--peer=big_vision:PATH."
    )
  return BigVisionStep(*builders[work.kind](checkout, work, precision))


def _module(checkout: Path, name: str) -> Any:
  folder = str(checkout.resolve())
  if folder not in sys.path:
    sys.path.insert(0, folder)
  try:
    return importlib.import_module(f"big_vision.models.{name}")
  except ImportError as e:
    raise NotInstalled(
      f"big_vision at {checkout} does not import here ({e}): pip install "
      f"-r {checkout}/big_vision/requirements.txt"
    ) from e


def _sizes(tower: Tower) -> dict[str, Any]:
  return dict(
    width=tower.width,
    depth=tower.layers,
    num_heads=tower.heads,
    mlp_dim=tower.mlp_dim,
    pool_type="gap",
    scan=False,
  )


def _image_options(work: Work, precision: str) -> dict[str, Any]:
  patch = (work.patch_size, work.patch_size)
  return dict(_sizes(work.image), patch_size=patch, dtype_mm=precision)


def _classifier(checkout: Path, work: Work, precision: str):
  """Initial parameters, the loss, the batch."""
  vit = _module(checkout, "vit")
  model = vit.Model(
    work.num_classes, rep_size=False, **_image_options(work, precision)
  )

  def loss(params, batch):
    logits, _ = model.apply({"params": params}, batch["image"], train=True)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return jnp.mean(entropy(logits, batch["label"]))

  batch = batches.classification(work)
  return lambda key: model.init(key, batch["image"])["params"], loss, batch


def _two_towers(checkout: Path, work: Work, precision: str):
  """Initial parameters, the loss of SigLIP, the batch."""
  towers = _module(checkout, "proj.image_text.two_towers")
  text = dict(_sizes(work.text), vocab_size=work.vocab_size)
  text_model = _module(checkout, "proj.image_text.text_transformer")
  if hasattr(text_model.Model(1), "dtype_mm"):  # Not in every version.
    text["dtype_mm"] = precision
  model = towers.Model(
    # A feature of zeros has a norm without a gradient.
    image=dict(_image_options(work, precision), head_zeroinit=False),
    text=text,
    out_dim=work.image.width,
    temperature_init=10.0,
    bias_init=-10.0,
  )

  def loss(params, batch):
    image, text, out = model.apply(
      {"params": params}, batch["image"], batch["text"], train=True
    )
    # Zhai et al. 2023 (arXiv:2303.15343), algorithm 1.
    logits = image @ text.T * out["t"][0] + out["b"][0]
    signs = 2 * jnp.eye(len(logits)) - 1
    return jnp.mean(jnp.sum(jax.nn.softplus(-signs * logits), axis=1))

  batch = batches.pairs(work)

  def init(key):
    return model.init(key, batch["image"], batch["text"])["params"]

  return init, loss, batch


class BigVisionStep:
  """Parameters, optax's AdamW and one batch, in one jitted function."""

  facts: dict[str, Any]

  def __init__(
    self,
    init: Callable[[jax.Array], Params],
    loss: Callable[[Params, dict[str, jax.Array]], jax.Array],
    batch: batches.Arrays,
  ):
    optimizer = optax.adamw(
      candidate.LR,
      b1=candidate.B1,
      b2=candidate.B2,
      weight_decay=candidate.WEIGHT_DECAY,
    )

    def step(params, state, batch):
      value, grads = jax.value_and_grad(loss)(params, batch)
      updates, state = optimizer.update(grads, state, params)
      return optax.apply_updates(params, updates), state, value

    params = jax.jit(init)(jax.random.key(0))
    self._state = params, jax.jit(optimizer.init)(params)
    self._batch = jax.tree.map(jnp.asarray, batch)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
      *self._state, self._batch
    )
    start = time.perf_counter()
    self._compiled = lowered.compile()
    secs = time.perf_counter() - start
    memory = self._compiled.memory_analysis()
    self.facts = {
      "compile_secs": secs,
      "params": sum(x.size for x in jax.tree.leaves(params)),
      "temp_bytes": memory.temp_size_in_bytes,
      "argument_bytes": memory.argument_size_in_bytes,
    }
    steps = range(candidate.PARITY_STEPS)
    self.facts["losses"] = [float(self._step()) for _ in steps]

  def _step(self) -> jax.Array:
    *state, value = self._compiled(*self._state, self._batch)
    self._state = tuple(state)
    return value

  def run(self, num_steps: int) -> None:
    """Runs so many steps and waits for them."""
    for _ in range(num_steps):
      self._step()
    jax.block_until_ready(self._state)
