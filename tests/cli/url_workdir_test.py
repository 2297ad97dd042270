"""A run whose folder is behind a URL, as the command line has it."""

import json

import fsspec
import pytest

from mmjax.train import manifest, url_folder

URL = "memory://box/run"
SHORT = ("--config.train.num_steps=6", "--config.checkpoint.keep=2")


@pytest.fixture(scope="module")
def store():
  """The files behind all `memory://` URLs."""
  system = fsspec.filesystem("memory")
  system.store.clear()
  yield system
  system.store.clear()


def _rows(store):
  text = store.cat_file("/box/run/metrics.jsonl").decode()
  return [json.loads(line) for line in text.splitlines()]


def _losses(store):
  return {r["step"]: r["loss"] for r in _rows(store) if r["kind"] == "train"}


def _steps(store):
  return sorted(
    int(name.split("/")[-2])
    for name in store.glob(f"/box/run/checkpoints/*/{manifest.FILE}")
  )


@pytest.mark.slow
def test_a_run_lives_at_a_url(store, mmjax, tiny, refused, tmp_path):
  """One story, since each step of it needs the one before."""
  config = tiny("finetune,evaluated")
  command = ("train", config, f"--workdir={URL}", *SHORT)

  # It trains, and is whole at the URL.
  done = mmjax(*command)
  assert done.status == 0, done.err
  assert f"step 6 of 6 in {URL}" in done.out
  assert _steps(store) == [3, 6]
  first = _losses(store)
  assert sorted(first) == [1, 2, 3, 4, 5, 6]

  # It is cut off while its last step goes up, and goes on from the one before.
  store.rm_file(f"/box/run/checkpoints/6/{manifest.FILE}")
  done = mmjax(*command)
  assert done.status == 0, done.err
  assert "resumed from step 3" in done.out + done.err
  assert _steps(store) == [3, 6]
  assert _losses(store) == pytest.approx(first, rel=1e-5)

  # Another config is refused, and nothing is changed.
  before = dict(store.find("/box/run", detail=True))
  message = refused(*command, "--config.train.seed=5")
  assert f"{URL} holds a run of another config" in message
  assert set(store.find("/box/run")) == set(before)

  # It is evaluated and shown.
  done = mmjax("evaluate", f"--workdir={URL}", "--step=3", "--nopictures")
  assert done.status == 0, done.err
  assert f"{URL}, step 3" in done.out
  found = store.cat_file("/box/run/evaluations/00000003/metrics.json")
  assert "shapes/top1" in json.loads(found)
  done = mmjax("report", f"--workdir={URL}")
  assert done.status == 0, done.err
  assert f"report: {URL}/report.html" in done.out
  assert b"<html" in store.cat_file("/box/run/report.html")

  # Another run starts from it, into another URL.
  url_folder.fetched.cache_clear()
  done = mmjax(
    *("weights", "start", tiny("finetune"), "--out=memory://box/second"),
    f"--config.init.from_checkpoint={URL}",
  )
  assert done.status == 0, done.err
  assert f"(from {URL})" in done.out
  assert store.exists(f"/box/second/checkpoints/0/{manifest.FILE}")


def test_no_run_at_a_url_is_refused_by_its_address(refused, store):
  for verb in ("evaluate", "report"):
    message = refused(verb, "--workdir=memory://box/none")
    assert "memory://box/none" in message
  assert not store.exists("/box/none")


def test_a_url_that_nothing_opens_is_refused(refused, tiny):
  message = refused("train", tiny("finetune"), "--workdir=nonsense://box/run")

  assert "Nothing opens 'nonsense://box/run'" in message
