"""FLAVA, CLIP, SigLIP and ViLT of transformers, with random weights."""

from collections.abc import Callable, Sequence
from typing import Any

from mmjax.bench.candidate import Tower, Work
from mmjax.bench.peers import batches, libraries, torch_step

# Ids within any vocabulary; with end 2 CLIP's feature is that of the text's
# highest id, as in Radford et al. 2021.
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)


def make_flava(
  work: Work, precision: str, option: str = ""
) -> torch_step.TorchStep:
  """FLAVA's pretraining on pairs: contrastive, matching, words and patches.

  The codes of patches come with the batch: its image tokenizer isn't timed.
  It replaces hidden patches, so it has all of them in either of two passes.

  Raises:
    NotInstalled: there is no transformers, or no torch.
    UserError: work of another kind.
  """
  from_config = _kind(work, "flava", ["flava"])
  joint = work.fusion

  def build():
    return from_config(
      "FlavaForPreTraining",
      "FlavaConfig",
      image_config=dict(
        _sizes(work.image), **_pictures(work), vocab_size=work.num_codes
      ),
      text_config=dict(
        _sizes(work.text),
        vocab_size=work.vocab_size,
        max_position_embeddings=work.text_tokens,
      ),
      multimodal_config=_sizes(joint),
      hidden_size=joint.width,
      projection_dim=work.image.width,
      init_codebook=False,
    )

  def loss(model, batch):
    return model(
      input_ids=batch["text"],
      input_ids_masked=batch["text_masked"],
      pixel_values=batch["image"],
      bool_masked_pos=batch["image_hidden"],
      mlm_labels=batch["text_labels"],
      # It writes into them.
      mim_labels=batch["image_labels"].clone(),
      itm_labels=batch["match"],
      return_loss=True,
    ).loss

  return _step(
    build,
    loss,
    batches.masked_pairs(work),
    precision,
    option,
    note="class tokens; heads of single modalities that are never called",
  )


def make_clip(
  work: Work, precision: str, option: str = ""
) -> torch_step.TorchStep:
  """Two towers with the softmax loss of CLIP.

  Raises:
    NotInstalled: there is no transformers, or no torch.
    UserError: work of another kind.
  """
  from_config = _kind(work, "clip", ["contrastive"])

  def build():
    return from_config(
      "CLIPModel",
      "CLIPConfig",
      vision_config=dict(_sizes(work.image), **_pictures(work)),
      text_config=dict(
        _sizes(work.text),
        vocab_size=work.vocab_size,
        max_position_embeddings=work.text_tokens,
        **SPECIAL,
      ),
      projection_dim=work.image.width,
    )

  note = "class token as feature; causal text; the softmax loss"
  return _step(
    build, _paired, batches.pairs(work), precision, option, note=note
  )


def make_siglip(
  work: Work, precision: str, option: str = ""
) -> torch_step.TorchStep:
  """Two towers with the sigmoid loss of SigLIP.

  Raises:
    NotInstalled: there is no transformers, or no torch.
    UserError: work of another kind.
  """
  from_config = _kind(work, "siglip", ["contrastive"])

  def build():
    return from_config(
      "SiglipModel",
      "SiglipConfig",
      vision_config=dict(_sizes(work.image), **_pictures(work)),
      text_config=dict(
        _sizes(work.text),
        vocab_size=work.vocab_size,
        max_position_embeddings=work.text_tokens,
        projection_size=work.image.width,
        **SPECIAL,
      ),
    )

  note = "pictures pooled by a layer of attention; text by its last token"
  return _step(
    build, _paired, batches.pairs(work), precision, option, note=note
  )


def make_vilt(
  work: Work, precision: str, option: str = ""
) -> torch_step.TorchStep:
  """One stack over words and patches that predicts hidden words only.

  Raises:
    NotInstalled: there is no transformers, or no torch.
    UserError: work of another kind.
  """
  from_config = _kind(work, "vilt", ["flava"])

  def build():
    return from_config(
      "ViltForMaskedLM",
      "ViltConfig",
      **_sizes(work.image),
      **_pictures(work),
      vocab_size=work.vocab_size,
      max_position_embeddings=work.text_tokens,
      max_image_length=-1,
    )

  def loss(model, batch):
    return model(
      input_ids=batch["text_masked"],
      pixel_values=batch["image"],
      labels=batch["text_labels"],
    ).loss

  return _step(
    build,
    loss,
    batches.masked_pairs(work),
    precision,
    option,
    note="not the same work: one stack, hidden words only, their logits "
    "everywhere",
  )


def _kind(work: Work, name: str, kinds: Sequence[str]) -> Callable[..., Any]:
  """Checks the work; returns what builds a model of transformers."""
  libraries.check_kind(name, work, kinds)
  transformers = libraries.load("transformers")

  def from_config(model: str, config: str, **options: Any) -> Any:
    made = getattr(transformers, config)(**options)
    return getattr(transformers, model)(made)

  return from_config


def _sizes(tower: Tower) -> dict[str, int]:
  return dict(
    hidden_size=tower.width,
    num_hidden_layers=tower.layers,
    num_attention_heads=tower.heads,
    intermediate_size=tower.mlp_dim,
  )


def _pictures(work: Work) -> dict[str, int]:
  return dict(image_size=work.image_size, patch_size=work.patch_size)


def _paired(model: Any, batch: dict[str, Any]) -> Any:
  return model(
    input_ids=batch["text"], pixel_values=batch["image"], return_loss=True
  ).loss


def _step(
  build, loss, batch, precision: str, option: str, *, note: str
) -> torch_step.TorchStep:
  version = libraries.load("transformers").__version__
  return torch_step.TorchStep(
    build,
    loss,
    batch,
    precision=precision,
    mode=option,
    version=f"transformers {version}",
    note=note,
  )
