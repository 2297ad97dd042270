"""Rule tables: logical axis -> mesh axis, or several.

An axis that a table does not name is not split. A table is chosen with
`config.mesh.rules`; on a mesh axis of size 1 a rule does nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.core import axes, errors
from mmjax.sharding.mesh import AXES

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

# Examples are split over all batch axes, tokens over `sequence` (attention
# gathers keys and values): so `replica` and `sequence` go with every table.
_ACTIVATIONS: Rules = (
  (axes.ACT_BATCH, ("replica", "data", "fsdp")),
  (axes.ACT_SEQ, "sequence"),
  (axes.ACT_EMBED, None),
  (axes.ACT_HEADS, None),
  (axes.ACT_MLP, None),
  (axes.ACT_VOCAB, None),
)

RULES: dict[str, Rules] = {
  # Parameters and optimizer state on every device.
  "data_parallel": _ACTIVATIONS,
  # Each parameter split over `fsdp` along its embedding axis (ZeRO-3). With
  # `replica` > 1 hybrid: split within a replica, alike in all.
  "fsdp": (*_ACTIVATIONS, (axes.EMBED, "fsdp")),
  # Besides, the feed-forwards that one modality alone uses (multiway layers)
  # split over `tensor`: of them a token passes one, of the rest all.
  "fsdp_expert": (
    *_ACTIVATIONS,
    (axes.EMBED, "fsdp"),
    (axes.EXPERT_MLP, "tensor"),
  ),
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
    (axes.EXPERT_MLP, "tensor"),
    (axes.VOCAB, "tensor"),
  ),
}


def rules(name: str, changes: Mapping[str, Any] | None = None) -> Rules:
  """Returns a table by name.

  Args:
    name: one of `RULES`.
    changes: logical axis -> mesh axis, or several, or None: not split.

  Raises:
    UserError: unknown name, or axes.
  """
  if name not in RULES:
    raise errors.unknown("sharding rules", name, RULES)
  table = dict(RULES[name])
  for axis, over in (changes or {}).items():
    if axis not in axes.ALL_AXES:
      raise errors.unknown("axis of config.mesh.changes", axis, axes.ALL_AXES)
    table[axis] = over if over is None or isinstance(over, str) else tuple(over)
    for chosen in _chosen(table[axis]):
      if chosen not in AXES:
        raise errors.unknown(
          f"mesh axis of config.mesh.changes.{axis}", chosen, AXES
        )
  return tuple(table.items())


def check_used(table: Rules, sizes: Mapping[str, int]) -> None:
  """Checks that no device would do only what another does too.

  Args:
    table: the rules.
    sizes: of the mesh axes.

  Raises:
    UserError: a mesh axis is larger than 1, and no rule splits over it.
  """
  used = {axis for _, over in table for axis in _chosen(over)}
  for axis, size in sizes.items():
    if size > 1 and axis not in used:
      fitting = sorted(
        name
        for name, rows in RULES.items()
        if any(axis in _chosen(over) for _, over in rows)
      )
      raise errors.UserError(
        f"mesh.{axis}={size}, but config.mesh.rules split nothing over "
        f"{axis!r}: {size} devices would compute the same. Tables that do: "
        f"{fitting}."
      )


def _chosen(over: str | Iterable[str] | None) -> tuple[str, ...]:
  return (over,) if isinstance(over, str) else tuple(over or ())
