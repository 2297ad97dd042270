"""Sizes by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmjax.core import errors


@dataclasses.dataclass(frozen=True)
class Size:
  """Sizes of a transformer."""

  embed_dim: int
  num_layers: int
  num_heads: int
  mlp_dim: int


SIZES = {
  # Touvron et al. 2021 (arXiv:2012.12877), table 1.
  "Ti": Size(192, 12, 3, 768),
  "S": Size(384, 12, 6, 1536),
  # Dosovitskiy et al. 2021 (arXiv:2010.11929), table 1.
  "B": Size(768, 12, 12, 3072),
  "L": Size(1024, 24, 16, 4096),
  "H": Size(1280, 32, 16, 5120),
  # Zhai et al. 2022 (arXiv:2106.04560), table 2.
  "g": Size(1408, 40, 16, 6144),
  "G": Size(1664, 48, 16, 8192),
  # Alabdulmohsin et al. 2023 (arXiv:2305.13035), section 4: SoViT-400m.
  "So400m": Size(1152, 27, 16, 4304),
}


def resolve(size: str | Mapping[str, Any]) -> Size:
  """Returns a size given as a name, as fields, or as a base with changes.

  `"Ti"`, `dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)` and
  `dict(base="Ti", num_layers=4)` are all sizes.

  Raises:
    UserError: unknown name or field, or a field missing.
  """
  if isinstance(size, str):
    if size not in SIZES:
      raise errors.unknown("size", size, SIZES)
    return SIZES[size]
  fields = dict(size)
  base = fields.pop("base", None)
  known = [f.name for f in dataclasses.fields(Size)]
  for name in fields:
    if name not in known:
      raise errors.unknown("field of a size", name, [*known, "base"])
  if base:
    return dataclasses.replace(resolve(base), **fields)
  missing = [name for name in known if name not in fields]
  if missing:
    raise errors.UserError(
      f"The size {dict(size)} lacks {missing}; give them, or a 'base' such "
      f"as {sorted(SIZES)}."
    )
  return Size(**fields)
