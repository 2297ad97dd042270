import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors, trees
from mmjax.core.sequence import Sequence
from mmjax.models.decoders import DECODERS
from mmjax.models.encoders.text import text
from mmjax.models.encoders.vit import vit
from mmjax.models.fusion.joint import joint
from mmjax.models.heads import LinearHead, TiedTokenHead, TokenHead
from mmjax.models.multimodal import MultimodalModel
from mmjax.models.shared_space import SharedSpace
from mmjax.models.visual_tokenizer.tokenizer import vq

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
KEY = jax.random.key(0)
ENCODERS = {
  "image": vit(image_size=4, patch_size=2, size=SIZE),
  "text": text(vocab_size=11, max_tokens=3, size=SIZE),
}
FUSION = joint(size=SIZE)
SPACE = SharedSpace(5, ("image", "text"))
HEADS = {"label": LinearHead(7), "mlm": TokenHead(11)}
TOKENIZER = vq(
  image_size=4,
  patch_size=2,
  num_codes=6,
  code_dim=4,
  encoder_size=SIZE,
  decoder_size=SIZE,
)
MODEL = MultimodalModel(ENCODERS, FUSION, SPACE, HEADS, TOKENIZER)


def _call_all(model, image, text):
  """Every method once; each part's result by its name."""
  out = types.SimpleNamespace()
  out.image = model.encode("image", image, train=False)
  out.text = model.encode("text", text, mask=text > 0, train=False)
  sequences = {"image": out.image, "text": out.text}
  out.fused = model.fuse(sequences, train=False)
  out.pooled = model.pool("text", out.text)
  out.projected = model.project("text", out.text)
  out.image_projected = model.project("image", out.image)
  out.scale = model.temperature()["scale"]
  out.label = model.head("label", out.pooled)
  out.mlm = model.head("mlm", out.fused["text"].x)
  out.codes = model.codes(image)
  out.reconstruction = model.reconstruct(image, train=False)
  out.decoded = model.decode_codes(out.codes)
  return vars(out)


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(13)
  image = jnp.asarray(rng.integers(0, 256, (2, 4, 4, 3)), jnp.uint8)
  return image, jnp.asarray([[3, 1, 4], [5, 0, 0]], jnp.int32)


@pytest.fixture(scope="module")
def variables(batch):
  """Drawn by numpy: nothing is compiled."""
  rng = np.random.default_rng(14)
  shapes = jax.eval_shape(
    lambda: MODEL.init(KEY, *batch, method=lambda m, *a: _call_all(m, *a) and 0)
  )
  return jax.tree.map(
    lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype),
    nn.meta.unbox(shapes),
  )


@pytest.fixture(scope="module")
def results(variables, batch):
  return jax.jit(
    lambda *batch: MODEL.apply(variables, *batch, method=_call_all)
  )(*batch)


@pytest.fixture(scope="module")
def parts(variables, batch):
  """The same, from each part alone with its share of the parameters."""
  image, tokens = batch

  def run():
    def part(module, name, *args, **kwargs):
      share = {k: v[name] for k, v in variables.items() if name in v}
      return module.apply(share, *args, **kwargs)

    out = types.SimpleNamespace()
    vit_, text_ = ENCODERS["image"], ENCODERS["text"]
    out.image = part(vit_, "encoders_image", image, train=False)
    out.text = part(
      text_, "encoders_text", tokens, mask=tokens > 0, train=False
    )
    sequences = {"image": out.image, "text": out.text}
    out.fused = part(FUSION, "fusion", sequences, train=False)
    out.pooled = part(text_, "encoders_text", out.text, method="pool")
    out.projected = part(SPACE, "shared_space", "text", out.pooled)
    pooled = part(vit_, "encoders_image", out.image, method="pool")
    out.image_projected = part(SPACE, "shared_space", "image", pooled)
    out.scale = part(SPACE, "shared_space", method="scale")
    out.label = part(HEADS["label"], "heads_label", out.pooled)
    out.mlm = part(HEADS["mlm"], "heads_mlm", out.fused["text"].x)
    book = "visual_tokenizer"
    out.codes = part(TOKENIZER, book, image, method="codes")
    out.reconstruction = part(TOKENIZER, book, image, train=False)
    out.decoded = part(TOKENIZER, book, out.codes, method="decode_codes")
    return vars(out)

  return jax.jit(run)()


@pytest.mark.parametrize(
  "name",
  [
    "image",
    "text",
    "fused",
    "pooled",
    "projected",
    "image_projected",
    "scale",
    "label",
    "mlm",
    "codes",
    "reconstruction",
    "decoded",
  ],
)
def test_a_method_is_its_part_with_its_parameters(results, parts, name):
  assert set(results) == set(parts)
  for got, expected in zip(
    jax.tree.leaves(results[name]), jax.tree.leaves(parts[name]), strict=True
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_size_of_the_codebook_is_a_plain_number(variables):
  got = MODEL.apply(variables, method="codebook_size")
  assert isinstance(got, int) and got == 6


def _params_of(method, model=MODEL):
  shapes = jax.eval_shape(lambda: model.init(KEY, method=method))
  return shapes.get("params", {})


@pytest.mark.parametrize(
  ("call", "expected"),
  [
    (lambda m, image, text: m.encode("text", text, train=False),
     {"encoders_text"}),
    (lambda m, image, text: m.fuse(
      {"image": m.encode("image", image, train=False)}, train=False),
     {"encoders_image", "fusion"}),
    (lambda m, image, text: m.project(
      "image", m.encode("image", image, train=False)),
     {"encoders_image", "shared_space"}),
    (lambda m, image, text: m.head("mlm", jnp.ones((1, 16))), {"heads_mlm"}),
    (lambda m, image, text: m.codes(image), {"visual_tokenizer"}),
  ],
  ids=["encode", "fuse", "project", "head", "codes"],
)  # fmt: skip
def test_only_what_is_called_gets_parameters(batch, call, expected):
  params = _params_of(lambda m: call(m, *batch) is None)
  assert set(params) == expected


def test_a_projection_nobody_asks_for_gets_no_parameters(batch):
  params = _params_of(
    lambda m: m.project("image", m.encode("image", batch[0], train=False))
  )
  assert set(params["shared_space"]) == {"projections_image", "log_scale"}


def test_codes_bring_no_decoder(batch):
  params = _params_of(lambda m: m.codes(batch[0]))["visual_tokenizer"]
  assert set(params) == {"patches", "encoder_positions", "encoder", "to_code"}


def test_the_whole_is_as_large_as_its_parts(variables, batch, randomized):
  image, tokens = batch
  expected = sum(
    trees.num_params(tree)
    for tree in (
      randomized(ENCODERS["image"], image, train=False),
      randomized(ENCODERS["text"], tokens, train=False),
      randomized(FUSION, {"image": SEQUENCE, "text": SEQUENCE}, train=False),
      randomized(HEADS["label"], SEQUENCE.x),
      randomized(HEADS["mlm"], SEQUENCE.x),
      randomized(TOKENIZER, image, train=False),
    )
  )
  expected += 2 * 16 * 5 + 1  # Shared space.
  assert trees.num_params(variables["params"]) == expected


def test_no_gradient_flows_through_codes(variables, batch):
  image, _ = batch

  def total(params):
    codes = MODEL.apply({**variables, "params": params}, image, method="codes")
    return jnp.sum(codes.astype(jnp.float32))

  grads = jax.jit(jax.grad(total))(variables["params"])
  assert all(not np.any(np.asarray(g)) for g in jax.tree.leaves(grads))


EMPTY = MultimodalModel({})
SEQUENCE = Sequence(jnp.ones((1, 3, 16)), jnp.ones((1, 3), bool))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda m: m.fuse({}, train=False),
     r"no fusion: set config\.model\.fusion\."),
    (lambda m: m.temperature(),
     r"no shared space: set config\.model\.shared_dim\."),
    (lambda m: m.project("text", SEQUENCE),
     r"no shared space: set config\.model\.shared_dim\."),
    (lambda m: m.codes(jnp.zeros((1, 4, 4, 3), jnp.uint8)),
     r"no visual tokenizer: set config\.model\.visual_tokenizer\."),
    (lambda m: m.reconstruct(jnp.zeros((1, 4, 4, 3), jnp.uint8), train=False),
     r"no visual tokenizer: set config\.model\.visual_tokenizer\."),
    (lambda m: m.decode_codes(jnp.zeros((1, 4), jnp.int32)),
     r"no visual tokenizer: set config\.model\.visual_tokenizer\."),
    (lambda m: m.codebook_size(),
     r"no visual tokenizer: set config\.model\.visual_tokenizer\."),
    (lambda m: m.encode("text", jnp.zeros((1, 2), jnp.int32), train=False),
     r"Unknown encoder 'text'\. Known: \[\]"),
    (lambda m: m.head("mlm", jnp.ones((1, 2))),
     r"Unknown head 'mlm'\. Known: \[\]"),
  ],
)  # fmt: skip
def test_a_missing_part_is_named(call, message):
  with pytest.raises(errors.UserError, match=message):
    EMPTY.init(KEY, method=call)


@pytest.mark.parametrize(
  ("call", "near"),
  [
    (lambda m: m.encode("images", jnp.ones((1, 4)), train=False), "image"),
    (lambda m: m.head("labels", jnp.ones((1, 16))), "label"),
  ],
)
def test_a_wrong_name_is_refused_with_the_nearest(call, near):
  with pytest.raises(errors.UserError, match=f"Did you mean '{near}'"):
    MODEL.init(KEY, method=call)


def test_a_tied_head_reads_the_encoders_table(batch):
  _, text = batch
  model = MultimodalModel(ENCODERS, heads={"mlm": TiedTokenHead(11)})

  def run(model, text):
    encoded = model.encode("text", text, train=False)
    return model.head("mlm", encoded.x)

  logits, variables = model.init_with_output(KEY, text, method=run)
  assert logits.shape == (*text.shape, 11)
  assert "logits" not in variables["params"]["heads_mlm"]
  grads = jax.grad(
    lambda p: jnp.sum(model.apply({"params": p}, text, method=run) ** 2)
  )(nn.meta.unbox(variables["params"]))
  table = grads["encoders_text"]["stem"]["tokens"]["table"]
  # Tokens that stand in no text have gradients through the output alone.
  absent = np.setdiff1d(np.arange(11), np.asarray(text))
  assert len(absent) and np.all(np.any(table[absent] != 0, axis=1))


def test_a_head_tied_to_a_decoder_multiplies_by_its_table(batch):
  _, words = batch
  decoder = DECODERS["text"](vocab_size=11, max_tokens=3, size=SIZE)
  head = TiedTokenHead(11, tied_in="decoders", transform=False)
  model = MultimodalModel(
    ENCODERS, heads={"lm": head}, decoders={"text": decoder}
  )

  def run(model, words):
    decoded = model.decode("text", words, {}, train=False)
    return decoded.x, model.head("lm", decoded.x)

  init = jax.jit(lambda: model.init_with_output(KEY, words, method=run))
  (x, logits), variables = nn.meta.unbox(init())
  assert set(variables["params"]["heads_lm"]) == {"bias"}
  table = np.asarray(variables["params"]["decoders_text"]["tokens"]["table"])
  np.testing.assert_allclose(logits, x @ table.T, rtol=1e-4, atol=1e-5)
