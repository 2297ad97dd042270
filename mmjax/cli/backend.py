"""Settings of jax that every verb shares."""

import os
from pathlib import Path

# By default XLA orders the collectives of a program anew on each CPU device:
# fake devices on a few cores then wait for each other until XLA aborts (seen
# with jax 0.10.2 on 8 devices; in one order the step was 5 times as fast).
ONE_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def fake_devices(count: int) -> None:
  """Makes this many devices of a CPU; before `set_up`."""
  import jax

  if "xla_force_host_platform_device_count" not in os.environ.get(
    "XLA_FLAGS", ""
  ):
    os.environ["JAX_NUM_CPU_DEVICES"] = str(count)  # `set_up` looks there.
    jax.config.update("jax_num_cpu_devices", count)


def set_up() -> None:
  """Turns the persistent compilation cache on, and makes fake devices safe.

  The folder is $JAX_COMPILATION_CACHE_DIR, or one in the user's cache. A
  program is compiled once on a machine, not once a run.
  """
  import jax

  xla_flags = os.environ.get("XLA_FLAGS", "")
  if (
    "xla_force_host_platform_device_count" in xla_flags
    or "JAX_NUM_CPU_DEVICES" in os.environ
  ) and ONE_ORDER.partition("=")[0] not in xla_flags:
    os.environ["XLA_FLAGS"] = f"{xla_flags} {ONE_ORDER}".strip()
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update(
      "jax_compilation_cache_dir", str(Path(base) / "mmjax" / "compiled")
    )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
