import jax
import ml_collections as mlc
import pytest

from mmjax.bench import suite, suite_rows, work
from mmjax.bench.candidate import Tower
from mmjax.build import experiment, settings

SMALL = dict(embed_dim=16, num_layers=2, num_heads=2, mlp_dim=48)
S = Tower(384, 12, 6, 1536)


def _classification():
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=32), label=dict(field="group")
  )
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=8, size=SMALL)),
    precision="float32",
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.train = dict(batch_size=2)
  return settings.resolve(c)


def _pairs():
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic",
    image=dict(size=32),
    text=dict(tokenizer="starter", max_tokens=12),
  )
  c.model = dict(
    encoders=dict(
      image=dict(name="vit", patch_size=8, size=SMALL),
      text=dict(name="text", size=SMALL),
    ),
    shared_dim=16,
    precision="float32",
  )
  c.tasks = dict(main=dict(objectives=dict(pairs=dict(name="contrastive"))))
  c.train = dict(batch_size=2)
  return settings.resolve(c)


def _counted(config):
  made = experiment.prepare(config, jax.devices()[:1])
  (flops,) = made.flops_of_steps.values()
  return flops


def test_flops_of_a_peer_are_those_of_the_jaxpr():
  config = _classification()
  # Our stem does without the gradient of the pixels, a third of its work.
  stem = 2 * 2 * 16 * (8 * 8 * 3) * 16
  assert work.flops(work.of(config)) == _counted(config) + stem


def test_flops_of_two_towers_are_those_of_the_jaxpr():
  config = _pairs()
  stem = 2 * 2 * 16 * (8 * 8 * 3) * 16
  # The similarities of 2 x 2 examples are all that the formula leaves out.
  assert work.flops(work.of(config)) == pytest.approx(
    _counted(config) + stem, rel=5e-3
  )


def test_flops_of_the_published_sizes():
  """By hand: 12 layers of 384, 16 x 16 patches of 224 pixels, 8 examples."""
  layer = 196 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 196 * 384)
  forward = 12 * layer + 196 * 2 * 768 * 384 + 2 * 384 * 1000
  task = work.of(suite.load("vit"))
  assert work.flops(task) == 3 * 8 * forward
  assert 219e9 < work.flops(task) < 220.5e9


def test_bench_configs_say_what_peers_need():
  vit, pairs = work.of(suite.load("vit")), work.of(suite.load("siglip"))
  assert (vit.kind, vit.batch_size, vit.num_classes) == (
    "image_classification",
    8,
    1000,
  )
  assert (vit.image, vit.text, vit.patches) == (S, None, 196)
  assert (pairs.kind, pairs.text, pairs.text_tokens) == ("contrastive", S, 64)
  assert (pairs.batch_size, pairs.vocab_size) == (16, 32_000)
  for arg, ratio, drops in (
    ("0.4", 0.4, True),
    ("0.75", 0.75, True),
    ("equal", 0.4, False),
  ):
    mixture = work.of(suite.load(f"flava:{arg}"))
    assert (mixture.kind, mixture.num_codes) == ("flava", 8192)
    assert mixture.fusion == Tower(384, 6, 6, 1536)
    assert mixture.hidden_ratio == pytest.approx(ratio, abs=3e-3)
    assert mixture.drops == drops


@pytest.mark.parametrize(
  "changes",
  [
    dict(stem="conv"),
    dict(objective=dict(name="masked_pixel_regression", given=())),
  ],
  ids=str,
)
def test_what_no_peer_has_is_other(changes):
  config = _classification().unlock()
  config.model.encoders.image.stem = changes.get("stem", "patch")
  if "objective" in changes:
    config.data.image.mask = dict(rate=0.5, patch_size=8)
    config.tasks.main.objectives = dict(other=changes["objective"])
  assert work.of(settings.resolve(config)).kind == "other"


def test_every_row_compares_what_can_be_made():
  """Each peer gets work of a kind that it does."""
  does = {
    "lean": {"image_classification", "contrastive", "flava"},
    "big_vision": {"image_classification", "contrastive"},
    "timm": {"image_classification"},
    "open_clip": {"contrastive"},
    "flava": {"flava"},
  }
  kinds = {}
  for row in suite_rows.ROWS:
    for member in (row.first, row.second):
      if isinstance(member, str) or member.who == "mmjax":
        continue
      if member.config not in kinds:
        kinds[member.config] = work.of(suite.load(member.config)).kind
      assert kinds[member.config] in does[member.who], row


def test_flops_of_flava_are_those_by_hand():
  """Each tower twice, fusion once, heads where something is hidden."""
  image, text, fusion = (
    Tower(16, 2, 2, 48),
    Tower(8, 3, 2, 40),
    Tower(12, 1, 2, 20),
  )
  task = work.Work(
    "flava",
    5,
    image_size=32,
    patch_size=8,
    image=image,
    text=text,
    fusion=fusion,
    vocab_size=70,
    text_tokens=20,
    num_codes=30,
    hidden_ratio=0.25,
  )

  def tower(size, tokens):
    d = size.width
    projections = 4 * d * d + 2 * d * size.mlp_dim
    attention = 2 * tokens * d
    return size.layers * tokens * (projections + attention)

  multiply_adds = (
    2 * (tower(image, 16) + 16 * (8 * 8 * 3) * 16 + tower(text, 20))
    + tower(fusion, 16 + 20)
    + 4 * 12 * 30  # A quarter of 16 patches.
    + 3 * 12 * 70  # 15 % of 20 tokens.
  )
  assert work.flops(task) == pytest.approx(5 * 3 * 2 * multiply_adds)
  assert work.tokens(task) == 16 + 20
