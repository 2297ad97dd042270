"""The rows of the CPU table: who is compared with whom, and what is asked.

Bounds come from a plain step in JAX and the peers, measured side by side on
two cores of an Intel CPU with AMX; other processors have other ratios, most of
all in bfloat16.
"""

import dataclasses

FAST, F32 = "bfloat16", "float32"
SPEED, TEMP, COMPILE = "speed", "temp memory", "compile time"
PIPELINES = "input"
OURS, TORCH, TF_DATA = (
  "mmjax workers, antialias=False",
  "torch DataLoader, Pillow, float32",
  "tf.data, float32",
)


@dataclasses.dataclass(frozen=True)
class Timed:
  """A candidate."""

  config: str  # Under configs/bench, `FILE:arg` without the suffix.
  precision: str = F32
  who: str = "mmjax"  # Or a peer.
  real_input: bool = False

  @property
  def name(self) -> str:
    """In tables and as a key; ends with the precision."""
    data = ", JPEGs" if self.real_input else ""
    return f"{self.who} {self.config}{data} {self.precision}"


@dataclasses.dataclass(frozen=True)
class Row:
  """A comparison: `first` over `second`."""

  number: str
  what: str
  # What runs side by side: all of it has to fit into 24 GiB with room to spare,
  # or the pages of some go missing and ratios mean nothing.
  group: str
  first: Timed | str  # A text: of `candidates.CANDIDATES`.
  second: Timed | str
  must: float
  goal: float
  measure: str = SPEED
  at_most: bool = False


def _peer(who: str, config: str, precision: str = F32) -> Timed:
  return Timed(config, precision, who)


VIT, VIT_FAST = Timed("vit"), Timed("vit", FAST)
SIGLIP, SIGLIP_FAST = Timed("siglip"), Timed("siglip", FAST)
FLAVA = {p: _peer("flava", "flava:equal", p) for p in (F32, FAST)}
DROP = {
  (rate, p): Timed(f"flava:{rate}", p)
  for rate in ("0.4", "0.75", "equal")
  for p in (F32, FAST)
}
MASKED = {
  name: Timed(f"masked:{name}")
  for name in ("replace", "patches", "predictor", "words", "all_words")
}
BIG = "big_vision"
ROWS = (
  Row(
    "1", "ViT-S/16 f32 vs big_vision", "vit", VIT, _peer(BIG, "vit"), 1.0, 1.08
  ),
  Row(
    "2",
    "SigLIP S f32 vs big_vision",
    "siglip",
    SIGLIP,
    _peer(BIG, "siglip"),
    1.0,
    1.05,
  ),
  Row("3a", "ViT f32 vs lean", "vit", VIT, _peer("lean", "vit"), 0.95, 1.0),
  Row(
    "3b",
    "SigLIP f32 vs lean",
    "siglip",
    SIGLIP,
    _peer("lean", "siglip"),
    0.95,
    1.0,
  ),
  Row(
    "3c",
    "mixture 0.4 f32 vs lean",
    "mixture f32",
    DROP["0.4", F32],
    _peer("lean", "flava:0.4"),
    0.95,
    1.0,
  ),
  Row(
    "4a",
    "ViT fast vs big_vision bf16",
    "vit",
    VIT_FAST,
    _peer(BIG, "vit", FAST),
    2.0,
    2.3,
  ),
  Row(
    "4b",
    "ViT fast vs big_vision f32",
    "vit",
    VIT_FAST,
    _peer(BIG, "vit"),
    1.7,
    1.9,
  ),
  Row(
    "5a",
    "ViT fast vs timm f32",
    "vit",
    VIT_FAST,
    _peer("timm", "vit"),
    1.2,
    1.4,
  ),
  Row(
    "5b",
    "ViT fast vs timm bf16",
    "vit",
    VIT_FAST,
    _peer("timm", "vit", FAST),
    0.65,
    0.8,
  ),
  Row(
    "6a", "ViT f32 vs timm f32", "vit", VIT, _peer("timm", "vit"), 0.70, 0.78
  ),
  Row(
    "6b",
    "SigLIP f32 vs open_clip f32",
    "siglip",
    SIGLIP,
    _peer("open_clip", "siglip"),
    0.75,
    0.82,
  ),
  Row(
    "7a",
    "mixture 0.4 f32 vs FLAVA f32",
    "mixture f32",
    DROP["0.4", F32],
    FLAVA[F32],
    1.7,
    1.9,
  ),
  Row(
    "7b",
    "mixture 0.75 f32 vs FLAVA f32",
    "mixture f32",
    DROP["0.75", F32],
    FLAVA[F32],
    2.3,
    2.6,
  ),
  Row(
    "8a",
    "mixture 0.4 fast vs FLAVA bf16",
    "mixture fast",
    DROP["0.4", FAST],
    FLAVA[FAST],
    1.5,
    1.7,
  ),
  Row(
    "8b",
    "mixture 0.75 fast vs FLAVA bf16",
    "mixture fast",
    DROP["0.75", FAST],
    FLAVA[FAST],
    2.0,
    2.4,
  ),
  Row(
    "9",
    "mixture 0.4 fast vs FLAVA f32",
    "mixture fast",
    DROP["0.4", FAST],
    FLAVA[F32],
    3.2,
    3.8,
  ),
  Row(
    "10a",
    "equal work f32 vs FLAVA f32",
    "mixture f32",
    DROP["equal", F32],
    FLAVA[F32],
    0.75,
    0.85,
  ),
  Row(
    "10b",
    "equal work fast vs FLAVA bf16",
    "mixture fast",
    DROP["equal", FAST],
    FLAVA[FAST],
    0.65,
    0.8,
  ),
  Row(
    "11a",
    "patches 0.75: MAE vs BEiT",
    "masked",
    MASKED["patches"],
    MASKED["replace"],
    2.0,
    2.3,
  ),
  Row(
    "11b",
    "patches 0.75: predictor vs BEiT",
    "masked",
    MASKED["predictor"],
    MASKED["replace"],
    2.5,
    2.8,
  ),
  Row(
    "12",
    "SigLIP, half of the patches vs all",
    "siglip, others",
    Timed("siglip:half"),
    SIGLIP,
    1.6,
    1.7,
  ),
  Row(
    "13a",
    "ViT f32 vs big_vision",
    "vit",
    VIT,
    _peer(BIG, "vit"),
    0.85,
    0.70,
    TEMP,
    True,
  ),
  Row(
    "13b",
    "SigLIP f32 vs big_vision",
    "siglip",
    SIGLIP,
    _peer(BIG, "siglip"),
    0.85,
    0.70,
    TEMP,
    True,
  ),
  Row(
    "14a",
    "ViT scan and remat vs unrolled",
    "vit",
    Timed("vit:scan"),
    VIT,
    0.35,
    0.28,
    TEMP,
    True,
  ),
  Row(
    "14b",
    "ViT scan and remat vs unrolled",
    "vit",
    Timed("vit:scan"),
    VIT,
    0.82,
    0.87,
  ),
  Row(
    "15a",
    "logits at hidden words vs at all",
    "masked",
    MASKED["words"],
    MASKED["all_words"],
    1.4,
    1.45,
  ),
  Row(
    "15b",
    "logits at hidden words vs at all",
    "masked",
    MASKED["words"],
    MASKED["all_words"],
    0.75,
    0.70,
    TEMP,
    True,
  ),
  Row("16a", "input vs torch and Pillow f32", PIPELINES, OURS, TORCH, 2.3, 2.7),
  Row("16b", "input vs tf.data f32", PIPELINES, OURS, TF_DATA, 1.0, 1.25),
  Row(
    "17",
    "SigLIP fast, JPEGs vs one batch",
    "siglip, others",
    Timed("siglip", FAST, real_input=True),
    SIGLIP_FAST,
    0.95,
    0.98,
  ),
  Row(
    "18",
    "ViT cold compile vs big_vision",
    "vit",
    VIT,
    _peer(BIG, "vit"),
    1.2,
    0.8,
    COMPILE,
    True,
  ),
)
