"""Rule tables: logical axis -> mesh axis, or several.

An axis that a table does not name is not split. A table is chosen with
`config.mesh.rules`; on a mesh axis of size 1 a rule does nothing.
"""

from mmjax.core import axes, errors

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

_ACTIVATIONS: Rules = (
  (axes.ACT_BATCH, ("replica", "data", "fsdp")),
  (axes.ACT_SEQ, None),
  (axes.ACT_EMBED, None),
  (axes.ACT_HEADS, None),
  (axes.ACT_MLP, None),
  (axes.ACT_VOCAB, None),
)

RULES: dict[str, Rules] = {
  # Parameters and optimizer state on every device.
  "data_parallel": _ACTIVATIONS,
  # Each parameter split over `fsdp` along its embedding axis (ZeRO-3).
  "fsdp": (*_ACTIVATIONS, (axes.EMBED, "fsdp")),
  # Besides, heads, hidden channels and vocabularies split over `tensor`.
  "fsdp_tensor": (
    *(
      rule
      for rule in _ACTIVATIONS
      if rule[0] not in (axes.ACT_HEADS, axes.ACT_MLP, axes.ACT_VOCAB)
    ),
    (axes.ACT_HEADS, "tensor"),
    (axes.ACT_MLP, "tensor"),
    (axes.ACT_VOCAB, "tensor"),
    (axes.EMBED, "fsdp"),
    (axes.HEADS, "tensor"),
    (axes.MLP, "tensor"),
    (axes.VOCAB, "tensor"),
  ),
}


def rules(name: str) -> Rules:
  """Returns a table by name.

  Raises:
    UserError: unknown name.
  """
  if name not in RULES:
    raise errors.unknown("sharding rules", name, RULES)
  return RULES[name]
