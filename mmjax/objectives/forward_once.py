"""One forward pass for many objectives."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import SEVERAL, Batch
from mmjax.core.sequence import Sequence

VIEWS = ("clean", "masked", "second")
# Whose parameters compute: the trained ones, their moving average, or those of
# the frozen `teacher` within the model.
BY = ("model", "ema", "teacher")
MODES = ("causal", "conversation", "parallel", "prefix")  # Of decoding.


class ForwardOnce:
  """The `Apply` that objectives get: remembers what was computed in a step.

  A call is known by (method, modalities, view). A view is a named version of
  the batch: "clean" is the batch as it is; "masked" takes `<field>_masked`
  for a field where the batch has it, and hides the positions in
  `<field>_hidden` from the encoder; "second" takes `<field>_second`, another
  look at the same thing. So masked language modelling and vision
  token prediction read one masked pass, contrastive alignment and captioning
  one clean pass. XLA merges repeated forward passes, never their backward
  passes: this is where that work is saved. What another than the model
  computes is remembered likewise; it runs as in evaluation, without gradient.

  Args:
    call: `call(method, *args, key=str, **kwargs)` runs a method of the model;
      `key` tells calls with randomness of their own apart. With `by`, if it is
      not "model".
    batch: the batch of this step.
    train: passed to the methods that behave differently in training.

  Raises:
    UserError: unknown view or `by`, or a modality that the batch lacks.
  """

  def __init__(self, call: Callable[..., Any], batch: Batch, *, train: bool):
    self._call = call
    self._batch = batch
    self._train = train
    self._known: dict[tuple[Any, ...], Any] = {}
    self._others: dict[str, ForwardOnce] = {}

  def __call__(
    self, method: str, *args: Any, view: str = "clean", by: str = "model"
  ) -> Any:
    if by != "model":
      return jax.lax.stop_gradient(self._other(by)(method, *args, view=view))
    if view not in VIEWS:
      raise errors.unknown("view", view, VIEWS)
    compute = getattr(self, f"_{method}", None)
    if compute is None:  # Called with arrays, which have no name to go by.
      key = "/".join([method, *(a for a in args if isinstance(a, str))])
      return self._call(method, *args, key=key)
    given = inspect.signature(compute).bind(*args, view=view)
    given.apply_defaults()  # What is left out is what its default says.
    call = (method, given.args, view)
    if call not in self._known:
      self._known[call] = compute(*args, view=view)
    return self._known[call]

  def replaced(self, **fields: Any) -> "ForwardOnce":
    """The same model on this batch with other fields in it.

    It remembers its own results: nothing is shared with this one.
    """
    return ForwardOnce(self._call, {**self._batch, **fields}, train=self._train)

  def _other(self, by: str) -> "ForwardOnce":
    if by not in BY:
      raise errors.unknown("who computes", by, BY)
    if by not in self._others:
      call = functools.partial(self._call, by=by)
      self._others[by] = ForwardOnce(call, self._batch, train=False)
    return self._others[by]

  def _encode(self, modality: str, *, view: str) -> Sequence:
    if modality in SEVERAL:
      return self._encode_each(modality, view)
    field = f"{modality}_second" if view == "second" else modality
    inputs, hidden = self._field(field), None
    if view == "masked":
      inputs = self._batch.get(f"{modality}_masked", inputs)
      hidden = self._batch.get(f"{modality}_hidden")
    # Only what the batch has: encoders of the user's own need not know all.
    names = {
      "coordinates": f"{field}_coordinates",
      "segments": f"{field}_segments",
      "present": f"{modality}_present",
    }
    optional = {k: self._batch[v] for k, v in names.items() if v in self._batch}
    positions = self._batch.get(f"{field}_positions")
    if positions is not None and "segments" in optional:  # Several share a row.
      optional["coordinates"] = positions[:, :, None]
      optional["packed"] = optional.pop("segments")
    return self._call(
      "encode",
      modality,
      inputs,
      mask=self._batch.get(f"{field}_mask"),
      hidden=hidden,
      train=self._train,
      **optional,
      key=f"encode/{modality}/{view}",
    )

  def _encode_each(self, field: str, view: str) -> Sequence:
    """Several pictures of each example, one after the other: `b (m n) d`."""
    images = self._field(field)  # b m h w c
    b, m = images.shape[:2]
    here = self._batch.get(f"{field}_mask", jnp.ones((b, m), bool))
    if f"{field}_present" in self._batch:
      here = here & self._batch[f"{field}_present"][:, None]
    optional = {}
    if view == "masked" and f"{field}_hidden" in self._batch:
      hidden = self._batch[f"{field}_hidden"].reshape(b * m, -1)  # (b m) k
      optional["hidden"] = hidden
    each = self._call(
      "encode",
      SEVERAL[field],
      images.reshape(b * m, *images.shape[2:]),
      train=self._train,
      **optional,
      key=f"encode/{field}/{view}",
    )
    if each.positions is not None:
      raise errors.UserError(
        f"Several pictures of an example ({field!r}) keep their hidden tokens: "
        "set the encoder's hidden='replace'."
      )
    before = each.before_norm
    if before is not None:
      before = before[:, each.num_prefix :].reshape(b, -1, before.shape[-1])
    x, mask = each.content, each.content_mask
    mask = mask.reshape(b, m, -1) & here[:, :, None]
    packed = self._batch.get(f"{field}_segments")  # b m
    if packed is not None:
      packed = jnp.repeat(packed, mask.shape[2], axis=1)  # b (m n)
    return Sequence(
      x.reshape(b, -1, x.shape[-1]),  # b (m n) d
      mask.reshape(b, -1),
      packed=packed,
      before_norm=before,
      num_content=mask.shape[1] * mask.shape[2],
    )

  def _fuse(
    self, modalities: tuple[str, ...], *, view: str
  ) -> dict[str, Sequence]:
    sequences = {m: self("encode", m, view=view) for m in modalities}
    return self._call(
      "fuse",
      sequences,
      train=self._train,
      key=f"fuse/{'+'.join(modalities)}/{view}",
    )

  def _decode(
    self,
    name: str,
    given: tuple[str, ...] = (),
    mode: str = "causal",
    fused: bool = False,
    cache_size: int = 0,
    *,
    view: str,
  ) -> Sequence:
    """Runs a decoder over the field that it makes, as it is in the batch.

    Args:
      name: of the decoder, and of the field.
      given: modalities that it may look at.
      mode: "causal"; "prefix": the first `<name>_prefix` tokens see each
        other; "parallel": texts in `<name>_parallel` show none of theirs;
        "conversation": as `<name>_segments`, `<name>_positions` and
        `<name>_places` say; a row of one conversation needs at most the last.
      fused: it looks at the modalities after their fusion.
      cache_size: tokens that the decoder can go on to, see `TextDecoder`.
      view: of the modalities.
    """
    if mode not in MODES:
      raise errors.unknown("mode of decoding", mode, MODES)
    if fused:
      context = self("fuse", given, view=view)
    else:
      context = {m: self("encode", m, view=view) for m in given}
    optional = {
      field: self._batch[f"{name}_{field}"]
      for field in ("mask", "present")
      if f"{name}_{field}" in self._batch
    }
    if cache_size:
      optional["cache_size"] = cache_size
    several = f"{name}_positions" in self._batch  # Texts in a row.
    if several or mode == "conversation":
      optional |= {
        field: self._batch[f"{name}_{field}"]
        for field in ("segments", "positions")
        if f"{name}_{field}" in self._batch
      }
    if mode == "conversation":
      if f"{name}_places" in self._batch:
        optional["places"] = self._batch[f"{name}_places"]
    elif mode != "causal":
      optional[mode] = self._field(f"{name}_{mode}")
    return self._call(
      "decode",
      name,
      self._field(name),
      context,
      train=self._train,
      **optional,
      key=f"decode/{name}/{'+'.join(given)}/{mode}/{fused}/{view}",
    )

  def _pool(
    self, modality: str, given: tuple[str, ...] = (), *, view: str
  ) -> Any:
    if given:  # After fusion with these.
      modalities = tuple(sorted({modality, *given}))
      sequence = self("fuse", modalities, view=view)[modality]
      key = f"pool/{modality}/{'+'.join(modalities)}/{view}"
    else:
      sequence = self("encode", modality, view=view)
      key = f"pool/{modality}/{view}"
    return self._call("pool", modality, sequence, key=key)

  def _project(self, modality: str, *, view: str) -> Any:
    sequence = self("encode", modality, view=view)
    return self._call(
      "project", modality, sequence, key=f"project/{modality}/{view}"
    )

  def _temperature(self, *, view: str) -> Any:
    del view
    return self._call("temperature", key="temperature")

  def _restore(
    self, modality: str, given: tuple[str, ...] = (), *, view: str
  ) -> Sequence:
    """All tokens of a modality, those that its encoder dropped too."""
    if given:  # After fusion with these.
      modalities = tuple(sorted({modality, *given}))
      sequence = self("fuse", modalities, view=view)[modality]
      key = f"restore/{modality}/{'+'.join(modalities)}/{view}"
    else:
      sequence = self("encode", modality, view=view)
      key = f"restore/{modality}/{view}"
    return self._call("restore", modality, sequence, train=self._train, key=key)

  def _patches(self, modality: str, *, view: str) -> Any:
    del view  # The target is the whole picture.
    optional = {}
    if modality == "audio":  # Which of its samples are real.
      optional["mask"] = self._batch.get("audio_mask")
    return self._call(
      "patches",
      modality,
      self._field(modality),
      **optional,
      key=f"patches/{modality}",
    )

  def _codes(self, modality: str, *, view: str) -> Any:
    del view  # The target is what the tokenizer sees in the whole picture.
    if f"{modality}_codes" in self._batch:  # Computed once, before training.
      return self._batch[f"{modality}_codes"]
    if modality in SEVERAL:
      return self._codes_each(modality)
    optional = {}
    if modality == "audio":  # Which of its samples are real.
      optional["mask"] = self._batch.get("audio_mask")
    return self._call(
      "codes",
      self._field(modality),
      modality=modality,
      **optional,
      key=f"codes/{modality}",
    )

  def _codes_each(self, field: str) -> Any:
    images = self._field(field)  # b m h w c
    codes = self._call(
      "codes",
      images.reshape(-1, *images.shape[2:]),
      modality=SEVERAL[field],
      key=f"codes/{field}",
    )
    return codes.reshape(len(images), -1)  # b (m n)

  def _reconstruct(self, modality: str, *, view: str) -> Any:
    del view
    return self._call(
      "reconstruct",
      self._field(modality),
      train=self._train,
      modality=modality,
      key=f"reconstruct/{modality}",
    )

  def _field(self, modality: str) -> Any:
    if modality not in self._batch:
      raise errors.unknown("field of the batch", modality, self._batch)
    return self._batch[modality]
