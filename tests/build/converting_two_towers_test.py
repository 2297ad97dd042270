"""CLIP, SigLIP and open_clip without torch: what they become, and back."""

import json

import numpy as np
import pytest
import safetensors.numpy

from mmjax.build import converting, experiment, settings
from mmjax.convert import FAMILIES, mapping
from mmjax.convert.family import Source
from mmjax.core import config as config_lib
from mmjax.core import errors, trees

SIZE = dict(
  hidden_size=8,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=12,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAD, EOS = 0, 2
CONFIGS = {
  "clip": dict(model_type="clip", projection_dim=6),
  "siglip": dict(model_type="siglip"),
}
for _config in CONFIGS.values():
  _config["text_config"] = dict(SIZE, vocab_size=57, max_position_embeddings=10)
  _config["vision_config"] = dict(SIZE, image_size=8, patch_size=4)
OPEN_CLIP = dict(
  embed_dim=6,
  vision_cfg=dict(
    image_size=8, patch_size=4, width=8, head_width=4, layers=1, mlp_ratio=1.5
  ),
  text_cfg=dict(
    context_length=10, vocab_size=57, width=8, heads=2, layers=1, mlp_ratio=1.5
  ),
)


def _vocabulary(folder):
  words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *LETTERS]
  words += [f"##{c}" for c in LETTERS]
  (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def _shapes(config):
  """Of our parameters, by name."""
  made = experiment.prepare(config)
  params = trees.flatten(made.abstract_state.params)
  return {name: x.shape for name, x in params.items()}


def _write(folder, name):
  """Random weights, by the rules of the family, and their config."""
  folder.mkdir()
  _vocabulary(folder)
  (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
  kind = FAMILIES[name]
  found = kind.find(Source(CONFIGS[name], {}))
  config, _ = converting._config(kind, found, str(folder))
  rng = np.random.default_rng(0)
  ours = {
    n: rng.normal(size=shape).astype(np.float32)
    for n, shape in _shapes(config).items()
  }
  theirs = dict(mapping.back(kind.found_rules(found), ours))
  theirs = {n: np.asarray(x, order="C") for n, x in theirs.items()}
  safetensors.numpy.save_file(theirs, folder / "model.safetensors")
  return ours


def _saved(workdir):
  text = (workdir / "config.json").read_text()
  return settings.resolve(config_lib.from_plain(json.loads(text)))


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def converted(request, tmp_path_factory):
  base = tmp_path_factory.mktemp(request.param)
  ours = _write(base / "hf", request.param)
  report = converting.import_weights(base / "hf", base / "run")
  return request.param, base, ours, report


def test_every_parameter_comes_back_and_forth(converted, tmp_path):
  name, base, ours, report = converted
  assert report.num_params == sum(x.size for x in ours.values())
  config = _saved(base / "run")
  converting.export_weights(config, base / "run", "latest", tmp_path / "hf")
  before = safetensors.numpy.load_file(base / "hf/model.safetensors")
  after = safetensors.numpy.load_file(tmp_path / "hf/model.safetensors")
  assert set(after) == set(before)
  for tensor, array in before.items():
    assert after[tensor].shape == array.shape, tensor
    np.testing.assert_array_equal(after[tensor], array, err_msg=tensor)
  exported = json.loads((tmp_path / "hf/config.json").read_text())
  for tower in ("text_config", "vision_config"):
    expected = CONFIGS[name][tower]
    assert {k: exported[tower][k] for k in expected} == expected


def test_texts_are_laid_out_as_theirs(converted):
  name, base, *_ = converted
  made = experiment.prepare(_saved(base / "run"))
  tokenizer = next(iter(made.parts.pipelines.values())).tokenizer
  a, b = 5, 5 + len(LETTERS) + 1
  expected = [1, a, b, EOS, PAD] if name == "clip" else [a, b, EOS, EOS, EOS]
  assert tokenizer.encode("ab", 10).tolist()[:5] == expected
  # What the workdir has says so by itself, and exports go without.
  content = json.loads((base / "run/tokenizer.json").read_text())
  assert ("layout" in content) == (name == "siglip")


def test_what_fills_texts_up_outlives_an_export():
  """Whose folder says it in config.json alone."""
  kind = FAMILIES["siglip"]
  beside = {"tokenizer_config.json": dict(pad_token="<pad>", eos_token="<eos>")}
  found = kind.find(Source(CONFIGS["siglip"], {}, beside))
  again = kind.find(Source(kind.beside(found)["config.json"], {}))
  assert again.config["text_fill"] == found.config["text_fill"] == "pad"


@pytest.mark.parametrize("converted", ["siglip"], indirect=True)
def test_what_fills_texts_up_is_said_of_a_model_trained_here(converted):
  config = _saved(converted[1] / "run")
  with config.unlocked():
    config.data.text.fill = "pad"
  shapes = {
    name: x.shape
    for name, x in trees.flatten(
      experiment.prepare(config).abstract_state.params
    ).items()
  }
  found = FAMILIES["siglip"].origin(config_lib.plain(config), shapes, {})
  assert found.config["text_fill"] == "pad"


@pytest.mark.parametrize("converted", ["clip"], indirect=True)
def test_a_clip_whose_end_theirs_would_not_find_is_not_written(
  converted, tmp_path
):
  _, base, *_ = converted
  record = base / "run" / converting.RECORD
  text = record.read_text()
  record.unlink()  # As if it had been trained here.
  try:
    with pytest.raises(errors.UserError, match="id 2.*another id"):
      converting.export_weights(
        _saved(base / "run"),
        base / "run",
        "latest",
        tmp_path / "hf",
        family="clip",
      )
  finally:
    record.write_text(text)
  assert not (tmp_path / "hf").exists()


def test_open_clip_becomes_the_same_model_as_clip(tmp_path):
  kind, other = FAMILIES["open_clip"], FAMILIES["clip"]
  beside = {"open_clip_config.json": {"model_cfg": OPEN_CLIP}}
  found = kind.find(Source({}, {}, beside))
  clip = other.find(Source(CONFIGS["clip"], {}))
  _vocabulary(tmp_path)
  config, _ = converting._config(kind, found, str(tmp_path))
  assert config_lib.plain(config)["model"]["encoders"]["image"]["size"] == dict(
    embed_dim=8, num_layers=1, num_heads=2, mlp_dim=12
  )
  assert config.model.encoders.text.stack.activation == "gelu"
  shapes = _shapes(config)
  arrays = {n: np.zeros(s, np.float32) for n, s in shapes.items()}
  theirs = dict(mapping.back(kind.found_rules(found), arrays))
  assert theirs["visual.proj"].shape == (8, 6)
  assert theirs["transformer.resblocks.0.attn.in_proj_weight"].shape == (24, 8)
  assert set(shapes) == set(
    n
    for r in other.found_rules(clip)
    if hasattr(r, "ours")
    for n in r.our_names
  )


@pytest.mark.parametrize(
  ("tower", "changes", "message"),
  [
    ("vision_cfg", dict(attentional_pool=True), "attentional_pool=True"),
    ("vision_cfg", dict(pool_type="avg"), "pool_type='avg'"),
    ("vision_cfg", dict(layers=[3, 4, 6, 3]), "ResNet"),
    ("text_cfg", dict(hf_model_name="roberta-base"), "hf_model_name"),
  ],
)
def test_towers_of_open_clip_that_we_have_not_are_refused(
  tower, changes, message
):
  config = {**OPEN_CLIP, tower: {**OPEN_CLIP[tower], **changes}}
  beside = {"open_clip_config.json": config}
  with pytest.raises(errors.UserError, match=message):
    FAMILIES["open_clip"].find(Source({}, {}, beside))


@pytest.mark.parametrize(
  ("name", "tower", "changes", "message"),
  [
    ("siglip", "vision_config", dict(vision_use_head=False), "vision_use_head"),
    ("siglip", "vision_config", dict(hidden_act="gelu"), "hidden_act='gelu'"),
    ("clip", "vision_config", dict(num_channels=1), "num_channels=1"),
  ],
)
def test_variants_that_we_cannot_be_are_refused(name, tower, changes, message):
  config = {**CONFIGS[name], tower: {**CONFIGS[name][tower], **changes}}
  with pytest.raises(errors.UserError, match=message):
    FAMILIES[name].find(Source(config, {}))


def test_a_config_that_says_nothing_is_the_default():
  empty = {"text_config": {}, "vision_config": {"hidden_size": 1024}}
  found = FAMILIES["siglip"].find(Source({"model_type": "siglip", **empty}, {}))
  assert found.config["text_config.vocab_size"] == 32000
  assert found.config["vision_config.hidden_size"] == 1024
  assert found.config["text_config.projection_size"] == 768


def test_pictures_of_any_shape_are_refused():
  with pytest.raises(errors.UserError, match="model_type='siglip2'"):
    kind = FAMILIES["siglip"]
    source = Source({**CONFIGS["siglip"], "model_type": "siglip2"}, {})
    assert kind.fits(source)
    kind.find(source)
