import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from mmjax.train import checkpoint, manifest, own_folder


def test_pieces_of_arrays_are_files_and_restored_to_the_bit(tmp_path):
  numbers = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
  state = {
    "params": {"a": {"kernel": jnp.asarray(numbers)}},
    "opt_state": (jnp.asarray(numbers[0], jnp.bfloat16), ()),
    "rng": jax.random.key(3),
  }
  saver = checkpoint.Checkpointer(tmp_path, keep=1, shared=False)
  for step in (1, 2):
    saver.save(step, state, {"config": step})
  saver.close()

  assert [p.name for p in tmp_path.iterdir()] == ["2"]
  assert not manifest.verify(tmp_path / "2")
  piece = tmp_path / "2" / "state" / "params.a.kernel" / "0.0"
  assert piece.is_file()
  where = SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state
  )
  step, got, meta = checkpoint.Checkpointer(tmp_path).restore(abstract)
  assert (step, meta["config"]) == (2, 2)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(state), strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def others(monkeypatch):
  """`others(first=..., wrong=...)`: what other processes say."""

  def say(first, wrong):
    """The first has the steps `first`; another finds `wrong` in its copy."""
    asked = iter(first)
    sent = iter([len(first), np.asarray(first, np.int32)])
    monkeypatch.setattr(
      multihost_utils, "broadcast_one_to_all", lambda x: next(sent)
    )
    monkeypatch.setattr(
      multihost_utils,
      "process_allgather",
      lambda own: np.asarray([int(own), int(next(asked) in wrong)]),
    )

  return say


@pytest.mark.parametrize(
  "here, first, wrong, expected",
  [
    ([9, 6], [9, 6, 3], [], ([9], [])),
    ([9, 6], [9, 6, 3], [9], ([6], [9])),
    ([6], [9, 6, 3], [], ([6], [9])),
    ([12, 9], [9], [], ([9], [])),
    ([9], [9], [9], ([], [9])),
    ([], [9], [], ([], [9])),
  ],
)
def test_a_step_is_good_if_it_is_in_the_copies_of_all(
  tmp_path, others, here, first, wrong, expected
):
  for step in here:
    folder = tmp_path / str(step)
    folder.mkdir()
    (folder / "data").write_bytes(b"good")
    manifest.write(folder)
  others(first, wrong)

  steps, bad = own_folder.agreed(tmp_path, here)

  assert (steps, list(bad)) == expected


def test_each_process_reads_its_own_copy(tmp_path, others):
  folder = tmp_path / "9"
  folder.mkdir()
  (folder / "data").write_bytes(b"good")
  manifest.write(folder)
  (folder / "data").write_bytes(b"evil")
  others([9], [])

  steps, bad = own_folder.agreed(tmp_path, [9])

  assert steps == [] and "SHA-256" in bad[9]
