"""How texts are cut, filled up and ended: in configs and files beside them."""

from typing import Any

from mmjax.convert.beside import pixels
from mmjax.convert.family import TOKENIZER, Source
from mmjax.core import errors


def complete_bert(source: Source, has: set[str]) -> dict[str, Any]:
  """What sentence-transformers writes: how many tokens a text has.

  There is no pooler where the mean is pooled.
  """
  pooling = source.beside.get("1_Pooling/config.json", {})
  if pooling.get("pooling_mode_mean_tokens"):
    has.discard("pooler")
    has.add("mean")
  limits = source.beside.get("sentence_bert_config.json", {})
  limit = limits.get("max_seq_length")
  return {"max_seq_length": limit} if limit else {}


def complete_siglip(source: Source, has: set[str]) -> dict[str, Any]:
  """What fills a text up stands with the tokenizer: SigLIP's </s>, or <pad>.

  As `text_fill`, which is also where exports have it.
  """
  said = source.beside.get(TOKENIZER, {})
  padded = said.get("pad_token") != said.get("eos_token")
  fill = source.config.get("text_fill", "pad" if padded else "eos")
  return {"text_fill": fill, **pixels.complete(source, has)}


def end_clip(eos_id: int) -> dict[str, int]:
  """The id that ends texts.

  Raises:
    UserError: transformers would take it for another.
  """
  if eos_id == 2:
    raise errors.UserError(
      "The tokenizer ends texts with the id 2, which transformers' CLIP takes "
      "for 'the highest id of the text', and would pool another token. Train "
      "with a tokenizer that ends them with another id."
    )
  return {"text_config.eos_token_id": eos_id}
