import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import errors, trees
from mmjax.train import checkpoint, manifest

NUMBERS = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@struct.dataclass
class State:
  step: Any
  params: Any
  opt_state: Any
  collections: Any
  ema: Any
  rng: Any


def _state(step=0):
  """Different numbers for each step, in all kinds of containers."""
  params = {
    "a": {"kernel": jnp.asarray(NUMBERS + step)},
    "b": jnp.asarray(NUMBERS[0] * step, jnp.bfloat16),
  }
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
  return State(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    collections={"codebook": {"codes": jnp.asarray(NUMBERS[:2] - step)}},
    ema=None,
    rng=jax.random.key(step + 7),
  )


def _abstract(state, num_devices=1):
  mesh = jax.make_mesh(
    (num_devices,),
    ("fsdp",),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:num_devices],
  )

  def place(name, x):
    spec = P("fsdp") if name.endswith("kernel") else P()
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return trees.map_names(place, jax.eval_shape(lambda: state))


def _bytes(state):
  """Everything in a state, bit for bit."""
  numbers = state.replace(rng=jax.random.key_data(state.rng))
  return {
    name: (x.dtype, x.shape, np.asarray(x).tobytes())
    for name, x in trees.flatten(numbers).items()
  }


def _save(directory, *steps, **kwargs):
  source = checkpoint.Checkpointer(directory, **kwargs)
  for step in steps:
    source.save(step, _state(step), {"config": {"seed": step}})
  source.close()


def _open(directory, **kwargs):
  return checkpoint.Checkpointer(directory, **kwargs)


def _largest_file(folder):
  return max(
    (p for p in folder.rglob("d/*") if p.is_file()),
    key=lambda p: p.stat().st_size,
  )


def _flip_a_byte(folder):
  path = _largest_file(folder)
  content = bytearray(path.read_bytes())
  content[-3] ^= 1
  path.write_bytes(content)


def test_restores_every_bit(tmp_path):
  _save(tmp_path, 3)

  step, state, meta = _open(tmp_path).restore(_abstract(_state()))

  assert step == 3
  assert _bytes(state) == _bytes(_state(3))
  assert jax.tree.structure(state) == jax.tree.structure(_state(3))
  assert meta == {"config": {"seed": 3}, "step": 3, "metrics": {}}


@pytest.mark.parametrize("async_", [True, False])
def test_donating_right_after_save_changes_nothing(tmp_path, async_):
  source = _open(tmp_path, async_=async_)
  state = _state(1)
  expected = _bytes(state)
  zero = jax.jit(
    lambda s: s.replace(params=jax.tree.map(jnp.zeros_like, s.params)),
    donate_argnums=0,
  )

  source.save(1, state, {})
  zero(state)
  source.close()

  _, restored, _ = _open(tmp_path).restore(_abstract(_state()))
  assert _bytes(restored) == expected


def test_restores_on_8_devices_then_1_then_8(tmp_path):
  state, expected = _state(1), _bytes(_state(1))
  for step, devices in enumerate((8, 1, 8), start=1):
    state = jax.tree.map(
      lambda x, like: jax.device_put(x, like.sharding),
      state,
      _abstract(state, devices),
    )
    source = _open(tmp_path)
    source.save(step, state, {})
    source.close()
    other = 9 - devices
    _, state, _ = _open(tmp_path).restore(_abstract(_state(), other))

    assert _bytes(state) == expected
    assert len(state.params["a"]["kernel"].sharding.device_set) == other


def test_flipped_byte_falls_back_to_the_older_step(tmp_path):
  _save(tmp_path, 1, 2)
  _flip_a_byte(tmp_path / "2")

  with pytest.warns(UserWarning, match="DAMAGED.*step 2.*differs.*Using st"):
    step, state, meta = _open(tmp_path).restore(_abstract(_state()))

  assert (step, meta["config"]) == (1, {"seed": 1})
  assert _bytes(state) == _bytes(_state(1))


def test_a_run_passes_a_damaged_step_again(tmp_path):
  _save(tmp_path, 1, 3)
  _flip_a_byte(tmp_path / "3")
  source = _open(tmp_path)
  with pytest.warns(UserWarning, match="DAMAGED"):
    source.restore(_abstract(_state()))

  source.save(2, _state(2), {})
  source.save(3, _state(3), {})
  source.close()

  assert _open(tmp_path).steps() == [1, 2, 3]
  assert (tmp_path / "damaged-3").is_dir()
  _, state, _ = _open(tmp_path).restore(_abstract(_state()))
  assert _bytes(state) == _bytes(_state(3))


def test_step_asked_for_by_number_does_not_fall_back(tmp_path):
  _save(tmp_path, 1, 2)
  path = _largest_file(tmp_path / "2")
  path.write_bytes(path.read_bytes()[:10])

  with pytest.raises(errors.UserError, match=r"10 bytes.*Other steps: \[1\]"):
    _open(tmp_path).restore(_abstract(_state()), 2)


def test_all_damaged_is_an_error_that_lists_each(tmp_path):
  _save(tmp_path, 1, 2)
  _flip_a_byte(tmp_path / "1")
  (tmp_path / "2" / "state" / "_METADATA").unlink()

  with pytest.raises(errors.UserError) as e:
    _open(tmp_path).restore(_abstract(_state()))

  assert "step 2 (state/_METADATA: missing)" in str(e.value)
  assert "step 1 (state/" in str(e.value)


def test_step_without_manifest_is_taken_if_it_can_be_read(tmp_path, caplog):
  _save(tmp_path, 1, 2)
  (tmp_path / "2" / "manifest.json").unlink()

  with caplog.at_level(logging.WARNING, "mmjax"):
    step, state, _ = _open(tmp_path).restore(_abstract(_state()))

  assert step == 2
  assert _bytes(state) == _bytes(_state(2))
  assert "Checkpoint 2 has no manifest.json" in caplog.text


def test_step_without_manifest_is_passed_over_if_not_readable(tmp_path):
  _save(tmp_path, 1, 2)
  (tmp_path / "2" / "manifest.json").unlink()
  (tmp_path / "2" / "state" / "_METADATA").write_text("{")

  with pytest.warns(UserWarning, match=r"step 2 \(no manifest.json, and "):
    step, _, _ = _open(tmp_path).restore(_abstract(_state()))

  assert step == 1


def test_other_tree_is_refused_with_lists(tmp_path):
  _save(tmp_path, 1)
  state = _state()
  state.params["a"]["new"] = jnp.zeros(3)
  state.params["a"]["kernel"] = jnp.zeros((8, 5))
  del state.params["b"]

  with pytest.raises(errors.UserError) as e:
    _open(tmp_path).restore(_abstract(state))

  assert "missing (1):\n    params/a/new" in str(e.value)
  assert "extra (1):\n    params/b" in str(e.value)
  assert "params/a/kernel: expected (8, 5), got (8, 4)" in str(e.value)


def test_array_without_a_sharding_is_refused(tmp_path):
  _save(tmp_path, 1)

  with pytest.raises(ValueError, match="'step' has no sharding"):
    _open(tmp_path).restore(jax.eval_shape(_state))


def test_restore_params_needs_no_tree(tmp_path):
  _save(tmp_path, 2)

  params, collections = _open(tmp_path).restore_params()

  np.testing.assert_array_equal(params["a"]["kernel"], NUMBERS + 2)
  assert type(params["b"]) is np.ndarray
  assert params["b"].tobytes() == np.asarray(_state(2).params["b"]).tobytes()
  np.testing.assert_array_equal(
    collections["codebook"]["codes"], NUMBERS[:2] - 2
  )


def test_averages_take_the_place_of_the_parameters_that_have_one(tmp_path):
  averages = {"a": {"kernel": jnp.asarray(NUMBERS * 3)}}
  state = dataclasses.replace(_state(2), ema=averages)
  source = _open(tmp_path)
  source.save(2, state, {})
  source.close()

  for averaged in (True, None):
    params, _ = _open(tmp_path).restore_params(averaged=averaged)
    np.testing.assert_array_equal(params["a"]["kernel"], NUMBERS * 3)
    assert params["b"].tobytes() == np.asarray(state.params["b"]).tobytes()
  params, _ = _open(tmp_path).restore_params()
  np.testing.assert_array_equal(params["a"]["kernel"], NUMBERS + 2)


def test_averages_that_no_run_has_kept_are_refused(tmp_path):
  _save(tmp_path, 2)

  with pytest.raises(errors.UserError, match="Step 2 .*no moving averages"):
    _open(tmp_path).restore_params(averaged=True)

  params, _ = _open(tmp_path).restore_params(averaged=None)
  np.testing.assert_array_equal(params["a"]["kernel"], NUMBERS + 2)


def test_saved_step_cannot_be_saved_again(tmp_path):
  source = _open(tmp_path)
  source.save(2, _state(2), {})

  for step in (2, 1):
    with pytest.raises(errors.UserError, match=rf"save step {step}.*\[2\]"):
      source.save(step, _state(step), {})
  source.close()


def test_newest_and_best_are_kept(tmp_path):
  source = _open(tmp_path, keep=2, best_metric="acc")
  for step, value in enumerate((0.1, 0.9, float("nan"), 0.5, 0.3), start=1):
    source.save(step, _state(step), {}, {"acc": value, "loss": 1.0})
  source.close()

  source = _open(tmp_path, best_metric="acc")
  assert source.steps() == [2, 4, 5]
  assert source.restore(_abstract(_state()), "best")[0] == 2
  assert source.read_meta("best")["metrics"] == {"acc": 0.9, "loss": 1.0}


def test_damaged_best_falls_back_to_the_second_best(tmp_path):
  source = _open(tmp_path, best_metric="loss", best_mode="min")
  for step, value in enumerate((0.1, 0.4, 0.3), start=1):
    source.save(step, _state(step), {}, {"loss": value})
  source.close()
  _flip_a_byte(tmp_path / "1")

  with pytest.warns(UserWarning, match="step 1 .* Using step 3"):
    step, _, _ = source.restore(_abstract(_state()), "best")

  assert step == 3


def test_best_without_the_metric_is_an_error(tmp_path):
  _save(tmp_path, 1)

  with pytest.raises(errors.UserError, match=r"best_metric='acc'.*\[1\]"):
    _open(tmp_path, best_metric="acc").read_meta("best")


def test_unknown_step_is_an_error(tmp_path):
  _save(tmp_path, 1)

  with pytest.raises(errors.UserError, match=r"No step 7.*Known: \[1\]"):
    _open(tmp_path).restore(_abstract(_state()), 7)


def test_no_checkpoint_is_an_error_and_makes_no_folder(tmp_path):
  source = _open(tmp_path / "none")

  assert source.latest() is None
  with pytest.raises(errors.UserError, match="No checkpoint in"):
    source.restore(_abstract(_state()))
  assert not (tmp_path / "none").exists()


def test_meta_that_is_no_json_is_refused_at_once(tmp_path):
  source = _open(tmp_path)

  with pytest.raises(TypeError, match="not JSON serializable"):
    source.save(1, _state(1), {"config": {1, 2}})

  assert source.steps() == []


def test_meta_of_a_damaged_step_is_passed_over(tmp_path):
  _save(tmp_path, 1, 2)
  (path,) = (tmp_path / "2" / "meta").glob("metadata")
  path.write_text(json.dumps({"step": 99}))

  assert _open(tmp_path).read_meta()["step"] == 1


def test_failed_save_is_reported_at_the_next_call(tmp_path, monkeypatch):
  def fail(folder, part):
    raise OSError(f"No space left on device: {folder.name}")

  monkeypatch.setattr(checkpoint.manifest, "write", fail)
  source = _open(tmp_path)
  source.save(1, _state(1), {})

  with pytest.raises(RuntimeError, match="Saving step 1 .* No space left"):
    source.close()


def test_a_save_that_failed_meanwhile_is_found_by_a_look(tmp_path, monkeypatch):
  begun, go = threading.Event(), threading.Event()

  def fail(folder, part):
    begun.set()
    go.wait(60)
    raise OSError("No space left on device")

  monkeypatch.setattr(checkpoint.manifest, "write", fail)
  source = _open(tmp_path)
  source.save(1, _state(1), {})
  assert begun.wait(60)
  source.check()  # Still at it.
  go.set()

  deadline = time.monotonic() + 60
  with pytest.raises(RuntimeError, match="Saving step 1 .* No space left"):
    while time.monotonic() < deadline:
      source.check()
      time.sleep(0.01)
  source.close()


def test_wrong_settings_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="keep=0"):
    _open(tmp_path, keep=0)
  with pytest.raises(errors.UserError, match="'maximum'.*Did you mean 'max'"):
    _open(tmp_path, best_mode="maximum")


KILLED = """
import os, signal, sys
import jax, numpy as np
from mmjax.train import checkpoint

big = np.random.default_rng(1).normal(size=(4096, 4096)).astype(np.float32)
source = checkpoint.Checkpointer(sys.argv[1])
source.save(1, {"params": {"a": jax.numpy.asarray(big)}}, {})
source.wait()
source.save(2, {"params": {"a": jax.numpy.asarray(big + 1)}}, {})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_while_saving_leaves_the_older_step(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
    env=dict(os.environ, JAX_PLATFORMS="cpu"),
    timeout=120,
  )
  assert done.returncode == -signal.SIGKILL
  expected = np.random.default_rng(1).normal(size=(4096, 4096))
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = {
    "params": {
      "a": jax.ShapeDtypeStruct((4096, 4096), jnp.float32, sharding=device)
    }
  }
  source = _open(tmp_path)

  step, state, _ = source.restore(abstract)
  source.save(2, state, {})
  source.close()

  assert step == 1
  np.testing.assert_array_equal(
    state["params"]["a"], expected.astype(np.float32)
  )
  assert _open(tmp_path).restore(abstract)[0] == 2
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("process", [0, 1])
def test_processes_take_the_step_that_the_first_finds_good(
  tmp_path, monkeypatch, process
):
  saver = checkpoint.Checkpointer(tmp_path)
  for step in (1, 2, 3):
    (tmp_path / str(step)).mkdir()
    (tmp_path / str(step) / "data").write_bytes(b"good")
    manifest.write(tmp_path / str(step))
  (tmp_path / "3" / "data").write_bytes(b"evil")
  sent = []

  def broadcast(value):
    sent.append(int(value))
    return np.int32(2)  # What the first process found.

  monkeypatch.setattr(jax, "process_index", lambda: process)
  monkeypatch.setattr(
    "jax.experimental.multihost_utils.broadcast_one_to_all", broadcast
  )

  steps, damaged = saver._agreed([3, 2, 1])

  assert (steps, list(damaged)) == ([2], [3])
  # Only the first reads the files.
  assert sent == ([2] if process == 0 else [3])
