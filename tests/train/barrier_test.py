import jax
import orbax.checkpoint as ocp
import pytest

from mmjax.train import barrier


def test_a_process_that_failed_does_not_wait_for_the_others(monkeypatch):
  waited = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(
    ocp.multihost,
    "get_barrier_sync_fn",
    lambda: lambda *, key, timeout_ms: waited.append((key, timeout_ms)),
  )

  barrier.wait(key="written", timeout_ms=7)
  with pytest.raises(OSError, match="No space left"):
    try:
      raise OSError("No space left on device")
    finally:
      barrier.wait(key="done", timeout_ms=7)

  assert waited == [("written", 7)]
