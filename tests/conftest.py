"""Settings of all tests: CPU, 8 fake devices, strict shapes, a warm cache.

Nothing of mmjax is imported here: jaxtyping has to see it first.
"""

import os
from pathlib import Path

from jaxlib import version

# See `mmjax.cli.backend`: fake devices wait for each other for ever.
XLA_FLAGS = ["--xla_cpu_enable_concurrency_optimized_scheduler=false"]
if version.__version_info__ < (0, 11):
  # XLA's older way from HLO to LLVM compiles a training step in a third of the
  # time. Copies differ a little: tests of what is on record ask for the newer,
  # as runs have it. Later jaxlibs do not know the flag, which ends a process.
  XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# By environment, so that the processes that tests start have them too.
SETTINGS = {
  "JAX_PLATFORMS": "cpu",
  "JAX_COMPILATION_CACHE_DIR": str(
    Path(__file__).resolve().parents[1] / ".jax_cache"
  ),
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  # LLVM's optimizations take half of the time of compiling, and a test runs a
  # program a few times. XLA's own stay: HLO and memory are those of any run.
  "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  "XLA_FLAGS": " ".join(XLA_FLAGS),
}
for _name, _value in SETTINGS.items():
  os.environ.setdefault(_name, _value)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# A plug-in may have imported jax, which reads the environment only then.
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update(
  "jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"]
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update(
  "jax_disable_most_optimizations",
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1",
)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_runtest_setup(item):
  for backend in ("gpu", "tpu"):
    if item.get_closest_marker(backend) and jax.default_backend() != backend:
      pytest.skip(f"needs a {backend}, runs on {jax.default_backend()}")


@pytest.fixture
def rng() -> np.random.Generator:
  """The same random numbers in every run and for every test."""
  return np.random.default_rng(0)


@pytest.fixture(scope="session")
def starter_path(tmp_path_factory) -> str:
  """A folder for prepared starter tables, shared by parallel workers."""
  base = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    base = base.parent
  return str(base / "starter")
