"""Converted models against `transformers` on torch: inference on a CPU.

python experiments/performance/inference.py [ROUNDS [SECS]]

ViT-S/16 at 224 pixels and MiniLM-L6, batch 8, float32, both with 2 threads, in
processes of their own and in turn (`mmjax.bench.rounds`). The weights are
random, made by `transformers` and converted from its files; what both give of
the same inputs is compared too. Needs torch and transformers.
"""

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.bench import rounds
from mmjax.bench.peers import libraries

THREADS = 2
BATCH = 8
SIZE = dict(hidden_size=384, intermediate_size=1536)
# Class, config, sizes; and tokens of a text, 0 = pictures.
MODELS = {
  "ViT-S/16": (
    "ViT",
    dict(num_hidden_layers=12, num_attention_heads=6, **SIZE),
    0,
  ),
  "MiniLM-L6, 32 tokens": (
    "Bert",
    dict(num_hidden_layers=6, num_attention_heads=12, **SIZE),
    32,
  ),
  "MiniLM-L6, 128 tokens": (
    "Bert",
    dict(num_hidden_layers=6, num_attention_heads=12, **SIZE),
    128,
  ),
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Calls:
  """Calls a function again and again; a sample is its calls a second."""

  def __init__(self, call: Callable[[], np.ndarray]):
    self._call = call
    self.facts: dict[str, Any] = {"said": call()}
    self.sample(1.0)

  def sample(self, secs: float) -> float:
    """Calls a second."""
    start, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < start + secs or not count:
      self._call()
      count += 1
    return count / (now - start)

  def close(self) -> None:
    """Nothing was started."""


def inputs(tokens: int) -> dict[str, np.ndarray]:
  """Pictures of bytes, or texts without padding."""
  rng = np.random.default_rng(0)
  if not tokens:
    return {"image": rng.integers(0, 256, (BATCH, 224, 224, 3), np.uint8)}
  text = rng.integers(5, 1000, (BATCH, tokens), dtype=np.int32)
  return {"text": text, "text_mask": np.ones(text.shape, bool)}


def write(folder: Path, kind: str, sizes: dict[str, Any]) -> None:
  """Random weights, as `transformers` writes them."""
  import torch

  transformers = libraries.load("transformers")

  torch.manual_seed(0)
  config = getattr(transformers, f"{kind}Config")(**sizes)
  model = getattr(transformers, f"{kind}Model")(config)
  model.save_pretrained(folder)
  if kind == "Bert":  # Converting asks for a tokenizer.
    words = [f"w{i}" for i in range(len(WORDS), config.vocab_size)]
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *words]) + "\n")


def make_ours(folder: Path, tokens: int) -> Calls:
  """The converted model, compiled."""
  import jax

  from mmjax.build import converting

  jax.config.update("jax_platforms", "cpu")
  loaded = converting.load(folder)
  model, variables = loaded.experiment.parts.model, {"params": loaded.params}
  (name, *_), batch = inputs(tokens), inputs(tokens)

  @jax.jit
  def run(variables, batch):
    return model.apply(
      variables,
      name,
      batch[name],
      mask=batch.get(f"{name}_mask"),
      train=False,
      method="encode",
    ).x

  return Calls(lambda: np.asarray(run(variables, batch)))


def make_theirs(folder: Path, kind: str, tokens: int) -> Calls:
  """The model of `transformers`."""
  import torch

  transformers = libraries.load("transformers")

  torch.set_num_threads(THREADS)
  model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
  batch = inputs(tokens)

  def run():
    if tokens:
      given = dict(
        input_ids=torch.from_numpy(batch["text"]),
        attention_mask=torch.from_numpy(batch["text_mask"]),
      )
    else:
      pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
      given = dict(pixel_values=(pixels.float() / 255.0 - 0.5) / 0.5)
    with torch.inference_mode():
      return model(**given).last_hidden_state.numpy()

  return Calls(run)


def compare(name: str, num_rounds: int, secs: float) -> None:
  """Prints the line of a model."""
  kind, sizes, tokens = MODELS[name]
  with tempfile.TemporaryDirectory() as folder:
    write(Path(folder), kind, sizes)
    found = rounds.run(
      {
        "mmjax": functools.partial(make_ours, Path(folder), tokens),
        "transformers": functools.partial(
          make_theirs, Path(folder), kind, tokens
        ),
      },
      rounds=num_rounds,
      secs=secs,
      environment={"OMP_NUM_THREADS": str(THREADS)},
    )
  for result in found:
    if result.missing:
      sys.exit(f"{result.name}: {result.missing}")
  ours, theirs = found
  said, expected = ours.facts["said"], theirs.facts["said"]
  difference = np.abs(said - expected).max() / np.abs(expected).max()
  print(
    f"| {name} | {BATCH * ours.median:.1f} | {BATCH * theirs.median:.1f} | "
    f"{rounds.ratio(ours, theirs)} | {difference:.1e} |"
  )


def main(num_rounds: int = 9, secs: float = 2.0) -> None:
  """Prints a table."""
  if (os.cpu_count() or 1) > THREADS:  # XLA takes all that it may run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
  os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
  print("| model | mmjax, examples/s | transformers | ratio | difference |")
  print("|---|---|---|---|---|")
  for name in MODELS:
    compare(name, num_rounds, secs)


if __name__ == "__main__":
  main(*(kind(x) for kind, x in zip((int, float), sys.argv[1:], strict=False)))
