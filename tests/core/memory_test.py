import pathlib
import types

import pytest

from mmjax.core import memory

CPU = types.SimpleNamespace(platform="cpu")
MEMINFO = """\
MemTotal:        8000 kB
MemFree:         1000 kB
MemAvailable:    6000 kB
"""
AVAILABLE = 6000 * 1024
STAT = "anon 1000\nfile_mapped 90\nfile 500\nkernel 7\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """A machine's files, by their path; none at first."""

  def write(path, text):
    file = tmp_path / path.removeprefix("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)

  monkeypatch.setattr(
    memory,
    "Path",
    lambda path: pathlib.Path(tmp_path / path.removeprefix("/")),
  )
  return write


def _container(machine, limit, used, stat=STAT):
  machine("/sys/fs/cgroup/memory.max", f"{limit}\n")
  machine("/sys/fs/cgroup/memory.current", f"{used}\n")
  machine("/sys/fs/cgroup/memory.stat", stat)


def test_a_gpu_has_left_what_is_not_in_use():
  stats = {"bytes_limit": 900, "bytes_in_use": 250, "peak_bytes_in_use": 800}
  gpu = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
  assert memory.free_bytes(gpu) == 650


def test_a_device_that_does_not_say_is_not_known(machine):
  machine("/proc/meminfo", MEMINFO)  # Of the host: another memory.
  tpu = types.SimpleNamespace(platform="tpu", memory_stats=lambda: None)
  assert memory.free_bytes(tpu) == 0


def test_where_there_are_no_files_nothing_is_known(machine):
  assert memory.free_bytes(CPU) == 0


def test_a_cpu_has_what_is_available(machine):
  machine("/proc/meminfo", MEMINFO)
  assert memory.free_bytes(CPU) == AVAILABLE


@pytest.mark.parametrize(
  "limit, used, free",
  [
    ("max", 0, AVAILABLE),
    # Less what is used, but for the pages of files.
    (5_000_000, 2_000_000, 5_000_000 - 2_000_000 + 500),
    (50_000_000, 2_000_000, AVAILABLE),  # More than the machine has.
  ],
)
def test_a_container_has_what_its_limit_leaves(machine, limit, used, free):
  machine("/proc/meminfo", MEMINFO)
  _container(machine, limit, used)
  assert memory.free_bytes(CPU) == free


def test_a_container_without_pages_of_files(machine):
  machine("/proc/meminfo", MEMINFO)
  _container(machine, 900, 200, "anon 1000\n")
  assert memory.free_bytes(CPU) == 700
