"""How much memory a device has left."""

from pathlib import Path
from typing import Any


def free_bytes(device: Any) -> float:
  """Memory that a program on a device could still get; 0 = not known."""
  stats = device.memory_stats() if device.platform != "cpu" else None
  if stats:
    return float(stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0))
  info = Path("/proc/meminfo")
  if device.platform != "cpu" or not info.exists():
    return 0.0
  rows = dict(line.split(":", 1) for line in info.read_text().splitlines())
  free = float(rows["MemAvailable"].split()[0]) * 1024
  return min(free, _left_of_container(free))


def _left_of_container(otherwise: float) -> float:
  """Of the limit of cgroups, version 2, if there is one."""
  folder = Path("/sys/fs/cgroup")
  try:
    limit = (folder / "memory.max").read_text().strip()
    used = (folder / "memory.current").read_text().strip()
    stat = (folder / "memory.stat").read_text()
  except OSError:
    return otherwise
  if limit == "max":
    return otherwise
  # Pages of files go when memory is wanted.
  cached = next(
    (int(r.split()[1]) for r in stat.splitlines() if r.startswith("file ")), 0
  )
  return float(int(limit) - int(used) + cached)
