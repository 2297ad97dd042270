"""`tiny.py`, with uploads every moment; one may be cut off by a kill.

DIE_WHILE_UPLOADING=1: process 1 is killed between two files of its part of a
checkpoint, once an older checkpoint is whole.
"""

import os
import signal

import jax
import ml_collections as mlc

from mmjax.train import mirror, step_files, url_folder
from tests.e2e import tiny

url_folder.EVERY_SECS = 0.2


def get_config(arg: str) -> mlc.ConfigDict:
  """See `tiny`."""
  if os.environ.get("DIE_WHILE_UPLOADING"):
    mirror.Mirror._put_step = _put_half
  return tiny.get_config(arg)


_put_step = mirror.Mirror._put_step


def _put_half(self, step, stamp):
  root = self._path(step_files.CHECKPOINTS)
  whole = self._system.glob(f"{root}/*/manifest.json")
  if jax.process_index() != 1 or not whole:
    return _put_step(self, step, stamp)
  put = self._system.put

  def put_one(sources, targets):
    put(sources[:1], targets[:1])
    os.kill(os.getpid(), signal.SIGKILL)

  self._system.put = put_one
  return _put_step(self, step, stamp)
