"""Reading a step folder; saving and restoring whole is in `checkpoint_test`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.train import checkpoint, manifest, stored

STATE = {
  "step": np.int32(4),
  "params": {"tower": {"kernel": np.arange(6.0, dtype=np.float32)}},
  "collections": {"codebook": {"codes": np.arange(3.0, dtype=np.float32)}},
  "opt_state": (np.zeros(6, np.float32),),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  directory = tmp_path_factory.mktemp("run")
  source = checkpoint.Checkpointer(directory)
  source.save(4, jax.tree.map(jnp.asarray, STATE), {"config": {"seed": 1}})
  source.close()
  return directory / "4"


def test_variables_are_read_without_step_and_moments(folder):
  got = stored.read_variables(folder)

  assert set(got) == {"params", "collections"}
  np.testing.assert_array_equal(
    got["params"]["tower"]["kernel"], STATE["params"]["tower"]["kernel"]
  )
  assert type(got["collections"]["codebook"]["codes"]) is np.ndarray


def test_meta_is_read_without_the_arrays(folder, tmp_path):
  bare = tmp_path / "4"
  bare.mkdir()
  (bare / "meta").symlink_to(folder / "meta")

  assert stored.read_meta(bare)["config"] == {"seed": 1}


def abstract(**changes):
  return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, STATE)) | changes


def test_same_tree_passes(folder):
  stored.check_tree(folder, abstract())


def test_other_tree_is_refused_before_an_array_is_read(folder):
  changed = abstract(
    params={"tower": {"weight": jax.ShapeDtypeStruct((6,), jnp.float32)}},
    collections={
      "codebook": {"codes": jax.ShapeDtypeStruct((5,), jnp.float32)}
    },
  )

  with pytest.raises(errors.UserError) as e:
    stored.check_tree(folder, changed)

  assert "missing (1):\n    params/tower/weight" in str(e.value)
  assert "extra (1):\n    params/tower/kernel" in str(e.value)
  assert "codes: expected (5,), got (3,)" in str(e.value)
  assert "config.init" in str(e.value)


def steps(directory, *, damaged=(), unlisted=()):
  """Folders 1, 2, 3 with a file and its manifest."""
  for step in (1, 2, 3):
    made = directory / str(step)
    made.mkdir()
    (made / "file").write_text(f"step {step}")
    if step not in unlisted:
      manifest.write(made)
    if step in damaged:
      (made / "file").write_text(f"STEP {step}")


def read(folder):
  return (folder / "file").read_text()


def test_first_good_step_is_read_and_the_damage_before_it_named(tmp_path):
  steps(tmp_path, damaged=(3,))

  step, item, problems = stored.read_first_good(tmp_path, (3, 2, 1), read)

  assert (step, item) == (2, "step 2")
  assert set(problems) == {3}
  assert "file" in problems[3]


def test_steps_are_tried_in_the_order_given(tmp_path):
  steps(tmp_path)

  assert stored.read_first_good(tmp_path, (1, 3), read)[0] == 1


def test_all_damaged_gives_none_and_every_problem(tmp_path):
  steps(tmp_path, damaged=(1, 2))

  step, item, problems = stored.read_first_good(tmp_path, (2, 1), read)

  assert (step, item, set(problems)) == (None, None, {1, 2})


def test_step_without_a_manifest_that_fails_to_read_is_damaged(tmp_path):
  steps(tmp_path, unlisted=(3,))

  def fail(folder):
    if folder.name == "3":
      raise OSError("half a file\nand more")
    return read(folder)

  step, _, problems = stored.read_first_good(tmp_path, (3, 2), fail)

  assert step == 2
  assert problems == {3: "no manifest.json, and OSError: half a file"}


def test_failure_to_read_whole_files_is_not_called_damage(tmp_path):
  steps(tmp_path)

  with pytest.raises(ZeroDivisionError):
    stored.read_first_good(tmp_path, (3, 2), lambda folder: 1 // 0)


@pytest.mark.parametrize(
  ("error", "expected"),
  [
    (ValueError("one\ntwo"), "one"),
    (KeyError(), "KeyError"),
    (OSError("x" * 400), "x" * 300),
  ],
)
def test_first_line_is_what_a_sentence_can_hold(error, expected):
  assert stored.first_line(error) == expected
