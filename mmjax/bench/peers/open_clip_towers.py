"""open_clip's two towers, with the loss of SigLIP."""

import math

from mmjax.bench.candidate import Work
from mmjax.bench.peers import batches, libraries, torch_step


def make(work: Work, precision: str, option: str = "") -> torch_step.TorchStep:
  """Makes the step of its own towers.

  The image tower has a class token, but its feature is the mean; the text
  tower sees both ways, and its feature is the last token's.

  Raises:
    NotInstalled: there is no open_clip, or no torch.
    UserError: work of another kind.
  """
  libraries.check_kind("open_clip", work, ["contrastive"])
  open_clip = libraries.load("open_clip")
  image, text = work.image, work.text

  def build():
    return open_clip.CLIP(
      embed_dim=image.width,
      vision_cfg=dict(
        image_size=work.image_size,
        patch_size=work.patch_size,
        width=image.width,
        layers=image.layers,
        head_width=image.width // image.heads,
        mlp_ratio=image.mlp_dim / image.width,
        no_ln_pre=True,
        pool_type="avg",
      ),
      text_cfg=dict(
        context_length=work.text_tokens,
        vocab_size=work.vocab_size,
        width=text.width,
        layers=text.layers,
        heads=text.heads,
        mlp_ratio=text.mlp_dim / text.width,
        no_causal_mask=True,
        pool_type="last",
      ),
      init_logit_scale=math.log(10),
      init_logit_bias=-10.0,
    )

  siglip = libraries.load("open_clip.loss").SigLipLoss()

  def loss(model, batch):
    return siglip(*model(batch["image"], batch["text"]))

  return torch_step.TorchStep(
    build,
    loss,
    batches.pairs(work),
    precision=precision,
    mode=option,
    version=f"open_clip {open_clip.__version__}",
    note="a class token beside the patches; text by its last token",
  )
