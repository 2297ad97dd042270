import jax
import jax.numpy as jnp
import pytest

from mmjax.core import errors, trees
from mmjax.models import variants
from mmjax.models.encoders.text import text
from mmjax.models.variants import Size

# As printed: DeiT (Touvron et al. 2021), table 1, for Ti and S; ViT
# (Dosovitskiy et al. 2021), table 1, for B, L and H; Zhai et al. 2022, table 2,
# for g and G; Alabdulmohsin et al. 2023 for So400m. Layers, embed_dim, mlp_dim,
# heads.
PRINTED = {
  "Ti": (12, 192, 768, 3),
  "S": (12, 384, 1536, 6),
  "B": (12, 768, 3072, 12),
  "L": (24, 1024, 4096, 16),
  "H": (32, 1280, 5120, 16),
  "g": (40, 1408, 6144, 16),
  "G": (48, 1664, 8192, 16),
  "So400m": (27, 1152, 4304, 16),
}


def test_sizes_are_the_published_ones():
  got = {
    name: (s.num_layers, s.embed_dim, s.mlp_dim, s.num_heads)
    for name, s in variants.SIZES.items()
  }
  assert got == PRINTED


def test_a_name_gives_its_size():
  assert variants.resolve("S") == Size(384, 12, 6, 1536)


def test_fields_give_a_size():
  got = variants.resolve(
    dict(mlp_dim=512, num_heads=2, embed_dim=128, num_layers=3)
  )
  assert got == Size(128, 3, 2, 512)


def test_a_base_is_changed_where_fields_say_so():
  given = dict(base="Ti", num_layers=4)
  assert variants.resolve(given) == Size(192, 4, 3, 768)
  assert given == dict(base="Ti", num_layers=4)  # Left as it was.


def test_a_base_may_have_a_base():
  got = variants.resolve(dict(base=dict(base="Ti", num_layers=4), mlp_dim=100))
  assert got == Size(192, 4, 3, 100)


@pytest.mark.parametrize(
  ("size", "message"),
  [
    ("Tii", r"Unknown size 'Tii'\. Did you mean 'Ti'\?"),
    (dict(base="XL"), r"Unknown size 'XL'"),
    (
      dict(base="Ti", num_layer=4),
      r"Unknown field of a size 'num_layer'\. Did you mean 'num_layers'\?",
    ),
    (
      dict(embed_dim=8, mlp_dim=8),
      r"lacks \['num_layers', 'num_heads'\].*'base' such as",
    ),
  ],
)
def test_a_wrong_size_is_refused_with_what_to_do(size, message):
  with pytest.raises(errors.UserError, match=message):
    variants.resolve(size)


def test_a_text_encoder_of_size_b_can_be_bert_base():
  encoder = text(
    vocab_size=30_522,
    max_tokens=512,
    size="B",
    num_segments=2,
    embedding_norm_epsilon=1e-12,
    stack=dict(norm_position="post", activation="gelu", norm_epsilon=1e-12),
  )
  tokens = jax.ShapeDtypeStruct((1, 512), jnp.int32)
  shapes = jax.eval_shape(
    lambda tokens: encoder.init(jax.random.key(0), tokens, train=False), tokens
  )
  # Published, with a pooler of 768^2 + 768: 110 million (Devlin et al. 2019),
  # exactly 109,482,240.
  assert trees.num_params(shapes) == 109_482_240 - (768 * 768 + 768)
