import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.build import (
  checkpoints,
  experiment,
  initial,
  settings,
  training,
)
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.train import checkpoint

KERNEL = "encoders_image/stem/patches/kernel"


@pytest.fixture(scope="module")
def taught(resolve, tmp_path_factory):
  """A workdir as of a trained classifier, and its parameters."""
  config = resolve("finetune")
  made = experiment.prepare(config, jax.devices()[:1])
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype),
    made.abstract_state.params,
  )
  workdir = tmp_path_factory.mktemp("teacher")
  saver = checkpoint.Checkpointer(workdir / "checkpoints")
  saver.save(1, {"params": params, "collections": {}}, {})
  saver.close()
  (workdir / "config.json").write_text(json.dumps(config_lib.plain(config)))
  return workdir, trees.flatten(params)


@pytest.fixture
def student(resolve, taught):
  """`student(edit)`: a smaller model that learns from it, prepared."""

  def make(edit=lambda config: None, **objective):
    def change(config):
      config.model.teacher = str(taught[0])
      config.model.encoders.image.size.embed_dim = 8
      config.tasks.main.objectives = dict(
        distill=dict(name="distillation", **objective)
      )
      edit(config)

    config = resolve("finetune", change)
    return config, experiment.prepare(config, jax.devices()[:1])

  return make


def test_a_teacher_is_loaded_and_stays_as_it_is(student, taught):
  config, made = student(what="logits")
  state, report = initial.initial_state(config, made)
  before = {n: np.asarray(x) for n, x in trees.flatten(state.params).items()}

  saved = taught[1]
  loaded = {n for n in before if n.startswith("teacher/")}
  assert loaded == {f"teacher/{n}" for n in saved}
  for name, value in saved.items():
    np.testing.assert_array_equal(before[f"teacher/{name}"], value)
  assert f"parameters of the teacher (from {taught[0]})" in report
  assert before[KERNEL].shape[1] == 8  # The student's own.
  assert not any("teacher" in n for n in trees.flatten(state.opt_state))

  rng = np.random.default_rng(1)
  batch = {
    name: rng.integers(0, 4, x.shape).astype(x.dtype)
    for name, x in made.abstract_batches()["main"].items()
  }
  # At step 0 of a warm-up the learning rate is zero.
  for _ in range(2):
    state, metrics = made.run_step(state, made.put({"main": batch}))
  after = trees.flatten(state.params)
  changed = {n for n in before if np.any(np.asarray(after[n]) != before[n])}
  assert changed and not changed & loaded
  assert metrics["distill/loss"].mean > 0


def test_what_is_not_called_has_no_parameters(student):
  _, made = student()
  names = trees.flatten(made.abstract_state.params)
  assert f"teacher/{KERNEL}" in names
  assert not any(n.startswith("teacher/heads") for n in names)
  assert names["heads_distillation/logits/kernel"].shape == (8, 16)


def test_a_teacher_of_other_pictures_is_refused_with_both_sizes(student):
  def edit(config):
    config.data.image.size = 48

  with pytest.raises(errors.UserError, match="image_size=32.*image_size=48"):
    student(edit)


def test_a_checkpoint_without_what_is_asked_is_refused(student):
  config, made = student(what="logits", head="other")
  state = made.abstract_state
  with pytest.raises(errors.UserError, match="missing.*\n.*heads_other"):
    initial.load_teacher({"params": state.params}, made, config.model.teacher)


def test_a_teacher_of_another_text_tokenizer_is_refused_with_both_ids(
  resolve, tmp_path
):
  made = experiment.prepare(resolve("pretrain"), jax.devices()[:1])
  tree = {"encoders_text": {"x": jnp.zeros(2)}}
  saver = checkpoint.Checkpointer(tmp_path / "checkpoints")
  meta = {"text_tokenizer": "0123abcd"}
  saver.save(1, {"params": tree, "collections": {}}, meta)
  saver.close()
  (tmp_path / "config.json").write_text(
    json.dumps(config_lib.plain(resolve("pretrain")))
  )
  with pytest.raises(errors.UserError) as e:
    initial.load_teacher({"params": {"teacher": tree}}, made, str(tmp_path))
  assert "0123abcd" in str(e.value)
  assert initial.text_tokenizer_id(made) in str(e.value)


@pytest.mark.slow
def test_a_run_with_a_teacher_goes_on_and_is_evaluated_without_it(
  resolve, taught, tmp_path
):
  folder = tmp_path / "teacher"
  shutil.copytree(taught[0], folder)

  def change(config):
    config.model.teacher = str(folder)
    config.tasks.main.objectives = dict(
      distill=dict(name="distillation", what="logits")
    )
    config.evaluators = dict(held_out=dict(name="loss"))
    config.train.num_steps = 2
    config.checkpoint.every_steps = 1
    config.optimizer.warmup_steps = 0

  config = resolve("finetune", change)
  workdir = tmp_path / "student"
  first = training.Run(config, workdir).execute()
  _, _, straight = checkpoints.restore(config, workdir, "latest")
  shutil.rmtree(folder / "checkpoints")  # Only its config.json is left.

  step, results = checkpoints.evaluate(
    config, workdir, "latest", (), pictures=False
  )
  assert step == 2
  assert results == pytest.approx(dict(first.results), rel=1e-6)
  assert results["held_out/distill/loss"] > 0

  shutil.rmtree(workdir / "checkpoints" / "2")
  outcome = training.Run(config, workdir).execute()
  assert outcome.finished and outcome.step == 2
  _, _, resumed = checkpoints.restore(config, workdir, "latest")
  resumed = trees.flatten(resumed.params)
  for name, value in trees.flatten(straight.params).items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)
  for name, value in taught[1].items():
    np.testing.assert_array_equal(resumed[f"teacher/{name}"], value)


def test_a_folder_without_a_run_is_refused(student, tmp_path):
  def edit(config):
    config.model.teacher = str(tmp_path)

  with pytest.raises(errors.UserError, match="teacher=.*no run there"):
    student(edit)


def test_learning_from_no_teacher_is_refused(student):
  def edit(config):
    config.model.teacher = ""

  with pytest.raises(errors.UserError, match="'distill'.*config.model.teacher"):
    student(edit)


def test_learning_from_no_average_is_refused(student):
  def edit(config):
    config.data.image.mask = dict(rate=0.5, patch_size=8)
    config.model.decoders = dict(
      image=dict(
        name="patches",
        size=dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32),
      )
    )
    config.tasks.main.objectives = dict(
      features=dict(name="masked_feature_prediction")
    )

  with pytest.raises(errors.UserError, match="'features'.*ema_decay"):
    student(edit)

  def averaged(config):
    edit(config)
    config.optimizer.ema_decay = 0.9

  _, made = student(averaged)
  names = trees.flatten(made.abstract_state.params)
  assert "decoders_image/restore/mask_token" in names
  assert made.parts.model.decoders["image"].grid == (4, 4)


def test_a_dropped_patch_that_nothing_puts_back_is_refused(student):
  def edit(config):
    config.data.image.mask = dict(rate=0.5, patch_size=8)
    config.tasks.main.objectives = dict(
      pixels=dict(name="masked_pixel_regression")
    )

  with pytest.raises(errors.UserError, match="config.model.decoders.image"):
    student(edit)


def test_the_teacher_of_a_checkpoint_to_start_from_is_left(
  resolve, taught, tmp_path
):
  params = trees.unflatten(
    {**taught[1], **{f"teacher/{n}": x for n, x in taught[1].items()}}
  )
  saver = checkpoint.Checkpointer(tmp_path / "checkpoints")
  saver.save(1, {"params": params, "collections": {}}, {})
  saver.close()
  shutil.copy(taught[0] / "config.json", tmp_path)

  def edit(config):
    config.init = dict(from_checkpoint=str(tmp_path))

  config = resolve("finetune", edit)
  made = experiment.prepare(config, jax.devices()[:1])
  fresh = jax.tree.map(
    lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding),
    made.abstract_state.params,
  )
  loaded, _ = initial.load(
    {"params": fresh}, made, settings.settings(config, "init")
  )
  got = trees.flatten(loaded["params"])
  assert set(got) == set(taught[1])
  np.testing.assert_array_equal(got[KERNEL], taught[1][KERNEL])
