import jax
import numpy as np
import pytest

from mmjax.build import (
  cached_codes,
  checkpoints,
  experiment,
  initial,
  tokenizer_ids,
)
from mmjax.core import errors
from mmjax.data import loader

WHOLE = dict(crop_scale=(1.0, 1.0))


def _only_codes(config):
  """Vision token prediction alone, of whole pictures, replaced patches."""
  config.data.image.update(WHOLE)
  config.data.text = None
  del config.model.encoders["text"]
  config.model.encoders.image.hidden = "replace"
  config.model.fusion = {}
  config.model.shared_dim = 0
  config.tasks.main.objectives = dict(
    vtp=dict(name="vision_token_prediction", given=())
  )
  config.train.num_steps = 3
  config.optimizer.warmup_steps = 0
  config.checkpoint.every_steps = 0


def _with_tokenizer(config, workdir):
  _only_codes(config)
  config.init = dict(
    from_checkpoint=str(workdir), new=("(?!visual_tokenizer/).*",)
  )


def _with_codes(config, path):
  _only_codes(config)
  config.model.visual_tokenizer = {}
  config.finetune = {}
  config.data.codes = dict(path=str(path))


@pytest.fixture(scope="module")
def trained(resolve, tokenizer_run):
  """The config that computes codes, and the losses of its three steps."""
  config = resolve("pretrain", lambda c: _with_tokenizer(c, tokenizer_run))
  return config, *_losses(config)


def _losses(config):
  """Losses of the three steps, by hand instead of a whole `Run`."""
  made = experiment.prepare(config, jax.devices()[:1])
  state, _ = initial.initial_state(config, made)
  tokenizer_ids.check(made, state)
  source = made.parts.pipelines["main"]
  batches = loader.train_batches(
    source, batch_size=made.batch_size, seed=0, num_threads=0
  )
  losses = []
  for _ in range(3):
    batch = next(batches)
    state, log = made.run_step(state, made.put({"main": batch}))
    losses.append(float(log["vtp/loss"].mean))
  return losses, made


@pytest.fixture(scope="module")
def written(resolve, trained, tokenizer_run, tmp_path_factory):
  """Codes of the split "train"; coder, folder and what progress was told."""
  config, _, _ = trained
  saved = resolve("tokenizer")
  coder = cached_codes.of_run(saved, tokenizer_run, config, "")
  out, told = tmp_path_factory.mktemp("codes"), []
  coder.write("train", str(out), lambda done, total: told.append((done, total)))
  return coder, out, told


def test_losses_are_the_same_with_and_without_the_cache(
  resolve, trained, written
):
  _, expected, made = trained
  coder, out, _ = written
  config = resolve("pretrain", lambda c: _with_codes(c, out))
  losses, cached = _losses(config)
  np.testing.assert_allclose(losses, expected, rtol=1e-6)
  assert len(set(losses)) == 3
  # Nothing of the tokenizer is there, and yet its id is known.
  assert not any("tokenizer" in n for n in cached.trainable)
  assert cached.parts.info.num_codes("image") == 16
  state = made.abstract_state
  meta = initial.checkpoint_meta(
    config, cached, initial.initial_state(config, cached)[0], 3
  )
  assert meta["visual_tokenizer"] is None and state is not None
  assert meta["cached_codes"] == {"image": coder.tokenizer}


def test_the_id_is_that_of_the_tokenizers_checkpoint(written, tokenizer_run):
  coder, _, told = written
  source = checkpoints.open_checkpoints(tokenizer_run)
  assert coder.tokenizer == source.read_meta()["visual_tokenizer"]
  source.close()
  done, totals = zip(*told, strict=True)
  assert list(done) == sorted(done) and done[-1] == totals[0]


def test_codes_of_another_tokenizer_are_refused(resolve, written):
  coder, out, _ = written

  def fresh(config):  # A tokenizer from scratch has the same shape.
    _only_codes(config)
    config.data.codes = dict(path=str(out))

  config = resolve("pretrain", fresh)
  made = experiment.prepare(config, jax.devices()[:1])
  state, _ = initial.initial_state(config, made)
  ours = initial.visual_tokenizer_id(state)
  with pytest.raises(errors.UserError) as e:
    tokenizer_ids.check(made, state)
  assert coder.tokenizer in str(e.value) and ours in str(e.value)


def test_a_run_does_not_go_on_with_other_codes(resolve, written):
  coder, out, _ = written
  config = resolve("pretrain", lambda c: _with_codes(c, out))
  made = experiment.prepare(config, jax.devices()[:1])
  state = made.abstract_state
  tokenizer_ids.check(made, state, {"cached_codes": {"image": coder.tokenizer}})
  with pytest.raises(errors.UserError, match="the run began with other"):
    tokenizer_ids.check(made, state, {"cached_codes": {"image": "other"}})


def test_a_head_that_learned_other_codes_is_not_taken_over(resolve, written):
  coder, out, _ = written
  config = resolve("pretrain", lambda c: _with_codes(c, out))
  made = experiment.prepare(config, jax.devices()[:1])
  head, encoder = "heads_vtp/logits/kernel", "encoders_image/stem/x"
  for before in (
    {"visual_tokenizer": "other"},
    {"visual_tokenizer": coder.tokenizer, "cached_codes": {"image": "other"}},
  ):
    with pytest.raises(errors.UserError) as e:
      tokenizer_ids.check_start(made, before, [encoder, head])
    assert coder.tokenizer in str(e.value) and "'vtp'" in str(e.value)
    assert "tokenizer other" in str(e.value)
    tokenizer_ids.check_start(made, before, [encoder])  # Its own head.
  same = {"visual_tokenizer": coder.tokenizer}
  tokenizer_ids.check_start(made, same, [encoder, head])
  tokenizer_ids.check_start(made, {"visual_tokenizer": None}, [head])


def test_random_crops_have_no_codes(resolve, tokenizer_run, tmp_path):
  saved = resolve("tokenizer")  # Crops, as tokenizers are trained.
  coder = cached_codes.of_run(saved, tokenizer_run, saved, "image")
  with pytest.raises(errors.UserError, match="crop_scale="):
    coder.write("train", str(tmp_path), lambda *_: None)
  whole = cached_codes.of_source(saved, "", "")
  assert tuple(whole.data.image.crop_scale) == (1.0, 1.0)
  assert tuple(saved.data.image.crop_scale) != (1.0, 1.0)


def test_a_config_gives_a_tokenizer_without_training(resolve, tmp_path):
  def edit(config):
    _only_codes(config)
    config.model.visual_tokenizer = dict(
      name="random_projection", patch_size=8, num_codes=30
    )
    config.finetune = {}

  config = resolve("pretrain", edit)
  coder = cached_codes.of_config(config, "image")
  folder = coder.write("test", str(tmp_path), lambda *_: None)
  assert (folder / "features.json").is_file() and folder.name == "test"

  def untrained(config):
    _only_codes(config)

  with pytest.raises(errors.UserError, match="not trained yet.*--tokenizer"):
    cached_codes.of_config(resolve("pretrain", untrained), "image")
  with pytest.raises(errors.UserError, match="modality of the data 'video'"):
    cached_codes.of_config(config, "video")
