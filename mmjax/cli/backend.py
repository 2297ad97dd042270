"""Settings of jax that every verb shares."""

import os
from pathlib import Path


def set_up() -> None:
  """Turns the persistent compilation cache on.

  The folder is $JAX_COMPILATION_CACHE_DIR, or one in the user's cache. A
  program is compiled once on a machine, not once a run.
  """
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update(
      "jax_compilation_cache_dir", str(Path(base) / "mmjax" / "compiled")
    )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
