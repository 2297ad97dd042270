"""timm's VisionTransformer, a classifier."""

from mmjax.bench.candidate import Work
from mmjax.bench.peers import batches, libraries, torch_step


def make(work: Work, precision: str, option: str = "") -> torch_step.TorchStep:
  """Makes the step, without class token and with the mean of all tokens.

  Raises:
    NotInstalled: there is no timm, or no torch.
    UserError: work of another kind.
  """
  libraries.check_kind("timm", work, ["image_classification"])
  timm = libraries.load("timm")
  tower = work.image

  def build():
    return timm.models.VisionTransformer(
      img_size=work.image_size,
      patch_size=work.patch_size,
      embed_dim=tower.width,
      depth=tower.layers,
      num_heads=tower.heads,
      mlp_ratio=tower.mlp_dim / tower.width,
      num_classes=work.num_classes,
      class_token=False,
      global_pool="avg",
      fc_norm=False,  # Normalized before the mean, as ours are.
    )

  def loss(model, batch):
    entropy = libraries.load("torch.nn.functional").cross_entropy
    return entropy(model(batch["image"]), batch["label"])

  return torch_step.TorchStep(
    build,
    loss,
    batches.classification(work),
    precision=precision,
    mode=option,
    version=f"timm {timm.__version__}",
  )
