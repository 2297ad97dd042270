"""DINOv2 with registers (Darcet et al. 2024)."""

from mmjax.convert.beside import pixels, widths
from mmjax.convert.families import dinov2
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

KEYS = f"""
  {dinov2.KEYS}
  registers <-> num_register_tokens ? 4
"""
RULES = f"""
  {dinov2.RULES}
  encoders_image/registers <-> {{p}}embeddings.register_tokens
"""
FAMILY = Family(
  name="dinov2_with_registers",
  keys=keys(KEYS, mlp_dim=widths.of_dinov2, patch_size=16),
  rules=rules(RULES),
  prefix="dinov2_with_registers.",
  architectures={
    "": "Dinov2WithRegistersModel",
    "label": "Dinov2WithRegistersForImageClassification",
  },
  complete=pixels.complete_imagenet,
  derive=widths.derive_dinov2,
  files=pixels.file("ViTImageProcessor"),
)
