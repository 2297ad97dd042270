import jax
import numpy as np
import pytest

from mmjax.build import checkpoints, experiment, initial, settings
from mmjax.core import errors, trees
from mmjax.data.tokenizer import TextTokenizer
from mmjax.train import checkpoint


def prepare(config):
  return experiment.prepare(config, jax.devices()[:1])


def make(config):
  return initial.initial_state(config, prepare(config))


def arrays(tree):
  return {n: np.asarray(x) for n, x in trees.flatten(tree).items()}


def assert_same(got, expected):
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.fixture(scope="module")
def scratch(resolve):
  return make(resolve("tokenizer"))


@pytest.fixture(scope="module")
def saved(tokenizer_run):
  """Parameters and collections of the tokenizer's checkpoint."""
  source = checkpoints.open_checkpoints(tokenizer_run)
  params, collections = source.restore_params()
  source.close()
  return params, collections


def test_from_scratch_says_so_with_the_seed(scratch):
  assert scratch[1] == "all parameters from scratch, seed 0"


@pytest.mark.slow
def test_the_seed_decides_the_parameters(resolve, scratch):
  def seeded(seed):
    def edit(config):
      config.train.seed = seed

    return arrays(make(resolve("tokenizer", edit))[0].params)

  assert_same(seeded(0), arrays(scratch[0].params))
  kernel = "visual_tokenizer/patches/kernel"
  assert np.all(seeded(1)[kernel] != seeded(0)[kernel])


@pytest.mark.slow
def test_the_mesh_does_not_change_the_parameters(resolve, scratch):
  def edit(config):
    config.mesh = dict(data=1, fsdp=4, tensor=2, rules="fsdp_tensor")

  config = resolve("tokenizer", edit)
  state, _ = initial.initial_state(config, experiment.prepare(config))

  assert_same(arrays(state.params), arrays(scratch[0].params))
  assert_same(arrays(state.collections), arrays(scratch[0].collections))


def start_from(workdir, **rules):
  def edit(config):
    config.init = dict(from_checkpoint=str(workdir), **rules)

  return edit


NEW = ("(?!visual_tokenizer/).*",)


@pytest.mark.slow
def test_what_is_loaded_is_the_checkpoints_and_the_rest_is_fresh(
  resolve, tokenizer_run, saved
):
  state, report = make(resolve("pretrain", start_from(tokenizer_run, new=NEW)))
  fresh, _ = make(resolve("pretrain"))

  params, collections = saved
  expected = arrays(fresh.params) | arrays(params)
  assert_same(arrays(state.params), expected)
  assert_same(arrays(state.collections), arrays(collections))
  assert f"(from {tokenizer_run})" in report
  assert "visual_tokenizer: " in report and " loaded" in report


def test_missing_run_says_what_was_expected(resolve, tmp_path):
  config = resolve("tokenizer", start_from(tmp_path / "none"))

  with pytest.raises(
    errors.UserError, match="No run in .*none.*config.json and checkpoints/"
  ):
    make(config)


@pytest.mark.slow
def test_unknown_step_lists_the_saved(resolve, tokenizer_run):
  config = resolve("tokenizer", start_from(tokenizer_run, step="7"))

  with pytest.raises(errors.UserError, match=r"No step 7.*Known: \[1\]"):
    make(config)


def load(config, made):
  """`initial.load` onto shapes: refusals come before any array."""
  variables = {
    "params": made.abstract_state.params,
    **made.abstract_state.collections,
  }
  return initial.load(
    variables, made, experiment.settings_lib.settings(config, "init")
  )


@pytest.mark.slow
def test_other_tree_is_refused_with_lists(resolve, tokenizer_run):
  def edit(config):
    start_from(tokenizer_run)(config)
    config.model.visual_tokenizer.code_dim = 4
    config.model.visual_tokenizer.encoder_size.num_layers = 2
    config.model.visual_tokenizer.decoder_size = dict(
      embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32
    )

  config = resolve("tokenizer", edit)

  with pytest.raises(errors.UserError) as e:
    load(config, prepare(config))

  text = str(e.value)
  assert "only in the model (initialise them: init.new)" in text
  assert "visual_tokenizer/encoder/layer_01/attention/key/bias" in text
  assert "other shape" in text
  assert (
    "visual_tokenizer/to_code/kernel: float32[16, 4] in the model, "
    "float32[16, 8] in the checkpoint" in text
  )


@pytest.mark.slow
def test_extra_parameters_of_the_checkpoint_are_refused(resolve, tokenizer_run):
  config = resolve("finetune", start_from(tokenizer_run, new=(".*",)))

  with pytest.raises(errors.UserError, match="only in the checkpoint"):
    load(config, prepare(config))


@pytest.mark.slow
def test_other_number_of_codes_is_refused(resolve, tokenizer_run):
  def edit(config):
    start_from(tokenizer_run)(config)
    config.model.visual_tokenizer.num_codes = 32

  config = resolve("tokenizer", edit)

  with pytest.raises(
    errors.UserError, match="lacks codebook/visual_tokenizer/codebook/state"
  ):
    load(config, prepare(config))


@pytest.fixture
def other_text_run(resolve, tmp_path):
  """A workdir that looks as if a text model had been trained in it."""
  workdir = tmp_path / "other"
  (workdir / "checkpoints").mkdir(parents=True)
  source = checkpoint.Checkpointer(workdir / "checkpoints")
  params = {
    "encoders_text": {"stem": {"tokens": {"table": np.zeros((300, 16))}}}
  }
  source.save(
    1,
    {"params": jax.tree.map(jax.numpy.asarray, params), "collections": {}},
    {"text_tokenizer": "0123456789ab"},
  )
  source.close()
  (workdir / "config.json").write_text(
    '{"checkpoint": {"best_metric": "", "best_mode": "max"}}'
  )
  return workdir


def test_other_text_tokenizer_is_refused_with_both_ids(resolve, other_text_run):
  config = resolve("pretrain", start_from(other_text_run))
  ours = TextTokenizer.load("starter").id

  with pytest.raises(errors.UserError) as e:
    load(config, prepare(config))

  assert f"0123456789ab, this config uses {ours}" in str(e.value)
  assert f"config.data.text.tokenizer to {other_text_run}/tokenizer.json" in (
    str(e.value)
  )


@pytest.mark.parametrize(
  "rules",
  [
    dict(dropped=("encoders_text/stem/tokens/table",), new=(".*",)),
    dict(new=(".*",)),
  ],
)
def test_other_text_tokenizer_is_no_matter_if_its_table_is_not_used(
  resolve, other_text_run, rules
):
  def edit(config):
    start_from(other_text_run, **rules)(config)
    config.model.visual_tokenizer = {}
    config.tasks.main.objectives = dict(mlm=dict(name="masked_lm"))
    config.finetune = {}

  config = resolve("pretrain", edit)
  made = prepare(config)
  variables = jax.tree.map(
    lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding),
    {"params": made.abstract_state.params},
  )

  loaded, report = initial.load(
    variables, made, experiment.settings_lib.settings(config, "init")
  )

  assert "loaded 0 of" in report
  assert set(loaded) == {"params"}


def test_meta_tells_where_a_checkpoint_came_from(resolve, scratch):
  config = resolve("tokenizer")
  made = prepare(config)

  meta = initial.checkpoint_meta(config, made, scratch[0], 5)

  assert meta["config"]["train"]["batch_size"] == 8
  assert meta["data"] == {
    "main": {
      "examples": 5 * 8,
      "fingerprint": {
        "source": "synthetic",
        "split": "train",
        "length": 1024,
        "seed": 0,
      },
    }
  }
  assert meta["text_tokenizer"] is None
  assert meta["versions"]["jax"] == jax.__version__


def test_id_of_a_visual_tokenizer_changes_with_parameters_and_codes(scratch):
  state = scratch[0]
  before = initial.visual_tokenizer_id(state)

  def changed(tree):
    return jax.tree.map(lambda x: x + 1, tree)

  ids = {
    before,
    initial.visual_tokenizer_id(state.replace(params=changed(state.params))),
    initial.visual_tokenizer_id(
      state.replace(collections=changed(state.collections))
    ),
  }
  assert len(ids) == 3
  assert initial.visual_tokenizer_id(state) == before


def test_a_model_without_a_visual_tokenizer_has_no_id(scratch):
  state = scratch[0].replace(params={})

  assert initial.visual_tokenizer_id(state) is None


def test_patches_are_inflated_if_the_config_says_so(
  resolve, saved, tokenizer_run
):
  params, collections = saved
  name = "visual_tokenizer/patches/kernel"
  flat = trees.flatten(params)
  kernel = np.asarray(flat[name])
  flat[name] = np.zeros((2 * kernel.shape[0], kernel.shape[1]), np.float32)
  variables = jax.tree.map(
    jax.numpy.asarray, {"params": trees.unflatten(flat), **collections}
  )
  config = resolve(
    "tokenizer", start_from(tokenizer_run, inflate="central_frame")
  )
  loaded, report = initial.load(
    variables, prepare(config), settings.settings(config, "init")
  )

  got = trees.flatten(loaded["params"])[name]
  np.testing.assert_array_equal(got[: len(kernel)], 0.0)
  np.testing.assert_array_equal(got[len(kernel) :], kernel)
  assert f"{name}: inflated 2-fold over time (central_frame)" in report
