"""A training step in PyTorch, as its users write it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.bench import candidate
from mmjax.bench.peers import libraries
from mmjax.core import errors

MODES = ("eager", "compile")


class TorchStep:
  """Model, AdamW and one batch, on the GPU if there is one.

  With "bfloat16" the forward pass is under autocast; parameters stay float32.

  Args:
    build: makes the model; random numbers are seeded before.
    loss: of a model and a batch of tensors, in which images are b c h w.
    batch: images b h w c.
    precision: "float32" or "bfloat16".
    mode: of `MODES`; "" is compiled on a GPU, eager on a CPU.
    facts: what else is known of the candidate.

  Raises:
    NotInstalled: there is no torch.
    UserError: an unknown precision or mode.
  """

  facts: dict[str, Any]

  def __init__(
    self,
    build: Callable[[], Any],
    loss: Callable[[Any, dict[str, Any]], Any],
    batch: Mapping[str, np.ndarray],
    *,
    precision: str,
    mode: str = "",
    **facts: Any,
  ):
    torch = libraries.load("torch")
    if precision not in candidate.PRECISIONS:
      raise errors.unknown("precision", precision, candidate.PRECISIONS)
    if mode and mode not in MODES:
      raise errors.unknown("way to run a torch peer", mode, MODES)
    self._torch, self._loss, self._precision = torch, loss, precision
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    self._batch = {name: self._put(name, x) for name, x in batch.items()}
    torch.manual_seed(0)
    model = build().to(self._device).train()
    params = [p for p in model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(
      params,
      lr=candidate.LR,
      betas=(candidate.B1, candidate.B2),
      weight_decay=candidate.WEIGHT_DECAY,
      fused=True,  # The fastest there is; the default is a loop in Python.
    )
    mode = mode or ("compile" if self._device == "cuda" else "eager")
    self._model = torch.compile(model) if mode == "compile" else model
    self.facts = {
      "params": sum(p.numel() for p in params),
      "library": f"torch {torch.__version__}, {mode}, {self._device}",
      **facts,
      **self._first_steps(),
    }

  def _put(self, name: str, x: np.ndarray) -> Any:
    if name == "image":
      x = np.ascontiguousarray(np.moveaxis(x, -1, 1))  # b c h w
    return self._torch.from_numpy(x).to(self._device)

  def _first_steps(self) -> dict[str, Any]:
    start = time.perf_counter()
    losses = [self._step().item()]
    secs = time.perf_counter() - start
    more = range(candidate.PARITY_STEPS - 1)
    losses += [self._step().item() for _ in more]
    found = {"compile_secs": secs, "losses": losses}
    if self._device == "cuda":
      found["peak_bytes"] = self._torch.cuda.max_memory_allocated()
    return found

  def _step(self) -> Any:
    torch = self._torch
    fast = self._precision == "bfloat16"
    with torch.autocast(self._device, torch.bfloat16, enabled=fast):
      loss = self._loss(self._model, self._batch)
    loss.backward()
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    return loss.detach()

  def run(self, num_steps: int) -> None:
    """Runs so many steps and waits for them."""
    for _ in range(num_steps):
      self._step()
    if self._device == "cuda":
      self._torch.cuda.synchronize()
