"""How processes that save together wait for each other.

Orbax waits for the other processes also after a write failed in this one (a
full disk): 20 minutes, for which they wait too, and then says only that it
waited. So a failed one is not held back, and its watchdog tells the others.
"""

import sys

import jax
import orbax.checkpoint as ocp


def wait(*, key: str, timeout_ms: int) -> None:
  """Waits until all processes are here, for `AsyncOptions.barrier_sync_fn`.

  Raises:
    BaseException: what this thread fails with while it comes here.
  """
  if jax.process_count() == 1:
    return
  error = sys.exc_info()[1]  # Orbax comes here in a `finally`.
  if error is not None:
    raise error
  ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
