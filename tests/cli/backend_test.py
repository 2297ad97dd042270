import os

import jax
import pytest

from mmjax.cli import backend

FAKE = "--xla_force_host_platform_device_count=8"


@pytest.fixture(autouse=True)
def settings():
  """Puts back what `set_up` changes."""
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ("", ""),
    (FAKE, f"{FAKE} {backend.ONE_ORDER}"),
    (f"{backend.ONE_ORDER} {FAKE}", f"{backend.ONE_ORDER} {FAKE}"),
    (
      f"{FAKE} --xla_cpu_enable_concurrency_optimized_scheduler=true",
      f"{FAKE} --xla_cpu_enable_concurrency_optimized_scheduler=true",
    ),
  ],
)
def test_fake_devices_run_their_collectives_in_one_order(
  monkeypatch, given, expected
):
  monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
  monkeypatch.setenv("XLA_FLAGS", given)

  backend.set_up()

  assert os.environ["XLA_FLAGS"] == expected


def test_cache_is_in_the_users_folder(monkeypatch, tmp_path):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

  backend.set_up()

  assert jax.config.jax_compilation_cache_dir == str(
    tmp_path / "mmjax" / "compiled"
  )


def test_cache_that_the_user_chose_is_kept(monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(before))

  backend.set_up()

  assert jax.config.jax_compilation_cache_dir == before
