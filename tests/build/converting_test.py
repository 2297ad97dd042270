import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mmjax.build import (
  checkpoints,
  converting,
  experiment,
  initial,
  settings,
  training,
)
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from tests.convert import tiny_bert
from tests.convert.tiny_bert import CONFIG, LAYER, SHAPES, D, M, N


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A folder with `hf`, a tiny BERT, and `run`, its workdir."""
  base = tmp_path_factory.mktemp("convert")
  made = tiny_bert.write(base / "hf")
  report = converting.import_weights(base / "hf", base / "run")
  return base, made, report


def _saved(workdir):
  text = (workdir / "config.json").read_text()
  return settings.resolve(config_lib.from_plain(json.loads(text)))


def test_every_number_is_accounted_for(base):
  _, made, report = base
  assert report.family == "bert"
  assert report.num_tensors == len(SHAPES)
  assert report.num_params == sum(x.size for x in made.values())


def test_the_workdir_restores_with_its_parameters(base):
  folder, made, _ = base
  _, step, state = checkpoints.restore(
    _saved(folder / "run"), folder / "run", "latest"
  )
  assert step == 0
  assert trees.num_params(state.opt_state) < 8  # Counters: nothing is trained.
  params = trees.flatten(state.params)
  kernel = params["encoders_text/stack/layer_00/attention/query/kernel"]
  query = made[f"{LAYER}.attention.self.query.weight"]
  for d in range(D):
    for head in range(2):
      np.testing.assert_array_equal(
        kernel[d, head], query[head * 4 : head * 4 + 4, d]
      )


def test_another_run_starts_from_it(base):
  folder, made, _ = base
  config = _saved(folder / "run")
  with config.unlocked():
    config.init.from_checkpoint = str(folder / "run")
    config.finetune.trainable = (".*",)
  started = experiment.prepare(config)
  state, report = initial.initial_state(config, started)
  assert str(folder / "run") in report
  table = state.params["encoders_text"]["stem"]["tokens"]["table"]
  words = made["embeddings.word_embeddings.weight"]
  np.testing.assert_array_equal(table, words.astype(np.float32))


def test_it_is_not_trained_as_it_is(base):
  folder = base[0] / "run"
  with pytest.raises(errors.UserError, match="finetune.trainable is empty"):
    training.Run(_saved(folder), folder)


@pytest.mark.parametrize("dtype", converting.DTYPES)
def test_export_gives_back_what_came(base, tmp_path, dtype):
  folder, made, _ = base
  out = tmp_path / "hf"
  converting.export_weights(
    _saved(folder / "run"), folder / "run", "latest", out, dtype=dtype
  )
  got = safetensors.numpy.load_file(out / "model.safetensors")
  kind = dict(float32=np.float32, bfloat16=ml_dtypes.bfloat16).get(dtype)
  assert set(got) == set(made)
  for name, array in made.items():
    array = array if kind is None else array.astype(kind)
    assert got[name].dtype == array.dtype, name
    np.testing.assert_array_equal(got[name], array, err_msg=name)
  config = json.loads((out / "config.json").read_text())
  assert {k: config[k] for k in CONFIG} == CONFIG
  tokenizer = json.loads((out / "tokenizer.json").read_text())
  assert "special_tokens" not in tokenizer
  assert tokenizer["model"]["vocab"]["[MASK]"] == 4


def test_import_of_an_export_is_the_same_run(base, tmp_path):
  folder = base[0]
  converting.export_weights(
    _saved(folder / "run"), folder / "run", "latest", tmp_path / "hf"
  )
  again = converting.load(tmp_path / "hf")
  before = converting.load(folder / "hf")
  assert again.record["dtypes"] == before.record["dtypes"]
  for name, array in trees.flatten(before.params).items():
    np.testing.assert_array_equal(trees.flatten(again.params)[name], array)


def test_parameters_are_saved_under_their_own_names(base, tmp_path):
  folder, made, report = base
  path = tmp_path / "out" / "x.safetensors"
  converting.export_file(folder / "run", "latest", path)
  got = safetensors.numpy.load_file(path)
  assert sum(x.size for x in got.values()) == report.num_params
  np.testing.assert_array_equal(
    got["encoders_text/stack/layer_00/mlp/hidden/kernel"],
    made[f"{LAYER}.intermediate.dense.weight"].T,
  )


@pytest.mark.parametrize(
  "change, match",
  [
    (dict(config={**CONFIG, "model_type": "bort"}), "model_type='bort'.*bert"),
    (dict(config={**CONFIG, "hidden_act": "gelo"}), "'gelo'.*'gelu'"),
    (dict(config={**CONFIG, "is_decoder": True}), "is_decoder=True"),
    (dict(drop=["pooler.dense.bias"]), "missing .1.:\n    pooler.dense.bias"),
    (dict(more=np.zeros(3, np.float32)), "no rule names .1.:\n    more"),
    (
      dict(config={**CONFIG, "intermediate_size": M + 1}),
      "does not become",
    ),
    (
      dict(config={**CONFIG, "max_position_embeddings": N + 1}),
      r"shape .16, 8., the model has .17, 8.",
    ),
    (
      dict(config={k: v for k, v in CONFIG.items() if k != "hidden_size"}),
      "lacks 'hidden_size'",
    ),
  ],
)
def test_what_does_not_fit_writes_nothing(tmp_path, change, match):
  tiny_bert.write(tmp_path / "hf", **change)
  with pytest.raises(errors.UserError, match=match):
    converting.import_weights(tmp_path / "hf", tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(base):
  folder = base[0]
  with pytest.raises(errors.UserError, match="holds a run"):
    converting.import_weights(folder / "hf", folder / "run")
  with pytest.raises(errors.UserError, match="has weights"):
    converting.export_weights(
      _saved(folder / "run"), folder / "run", "latest", folder / "hf"
    )


def test_a_model_of_another_kind_is_not_exported(base, tmp_path):
  folder = base[0]
  config = _saved(folder / "run")
  config.model.encoders.text.stack.norm_position = "pre"
  with pytest.raises(
    errors.UserError, match="no bert.*norm_position='pre', expected 'post'"
  ):
    converting.export_weights(config, folder / "run", "latest", tmp_path / "hf")
  with pytest.raises(errors.UserError, match="family to write 'bart'.*bert"):
    converting.export_weights(
      config, folder / "run", "latest", tmp_path / "hf", family="bart"
    )
  assert not (tmp_path / "hf").exists()


def test_a_model_without_what_a_family_has_is_not_exported(base, tmp_path):
  config = _saved(base[0] / "run")
  with pytest.raises(
    errors.UserError, match="no vit.*image_size does not say.*'image_size'"
  ):
    converting.export_weights(
      config, base[0] / "run", "latest", tmp_path / "hf", family="vit"
    )
  assert not (tmp_path / "hf").exists()


def test_what_is_left_to_data_and_names_is_written(base, tmp_path):
  """As where a model was trained here: only its own config says it all."""
  config = _saved(base[0] / "run")
  text = config.model.encoders.text
  with config.unlocked():
    text.size = dict(text.size.to_dict(), base="Ti")
    del text.max_tokens
    config.data.text.max_tokens = CONFIG["max_position_embeddings"]
    config.model.vocab_size = 0
  converting.export_weights(config, base[0] / "run", "latest", tmp_path / "hf")
  exported = json.loads((tmp_path / "hf/config.json").read_text())
  assert {k: exported[k] for k in CONFIG} == CONFIG


@pytest.mark.parametrize(
  "value, before, expected",
  [(1.5, "BF16", "BF16"), (1.0001, "BF16", "F32"), (1e6, "F16", "F32")],
)
def test_a_tensor_is_narrow_only_if_that_loses_nothing(value, before, expected):
  array = np.array([value], np.float32)
  assert converting.stored_dtype(array, "auto", before) == expected
