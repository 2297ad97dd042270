"""What figures were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
PEERS = ("torch", "timm", "transformers", "open_clip_torch")


def facts() -> dict[str, Any]:
  """Cores, processor, Python, and the load before."""
  return {
    "cores": len(os.sched_getaffinity(0)),
    "machine": platform.machine(),
    "processor": _processor(),
    "python": platform.python_version(),
    "load_before": os.getloadavg()[0],
  }


def versions() -> dict[str, str]:
  """Of the libraries that are timed, where they are installed."""
  found = {}
  for name in (*PACKAGES, *PEERS):
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def _processor() -> str:
  info = Path("/proc/cpuinfo")
  if info.exists():
    for line in info.read_text("utf-8").splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor()
