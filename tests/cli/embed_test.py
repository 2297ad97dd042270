"""`mmjax embed` on a run that was only begun: its parameters are random."""

import json

import jax
import numpy as np
import pytest

from mmjax.build import checkpoints
from mmjax.cli import arguments, main
from mmjax.data import sources

TEXTS = ("red circle", "blue square", "green triangle")


@pytest.fixture(scope="module")
def workdir(tiny, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run") / "W"
  status = main.main(["weights", "start", tiny("pretrain"), f"--out={workdir}"])
  assert status == 0
  return workdir


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("inputs")
  source = sources.open_source("synthetic", split="test")
  rows = []
  for i, text in enumerate(TEXTS):
    (folder / f"{i}.png").write_bytes(source[i]["image"])
    rows.append({"text": text, "image": f"{i}.png"})
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return folder


@pytest.fixture
def flags(workdir, inputs, tmp_path):
  """`flags(**changes)`: of a command that works, with some changed."""

  def make(**changes):
    known = dict(
      workdir=workdir, inputs=inputs / "rows.jsonl", out=tmp_path / "e.npz"
    )
    return [f"--{name}={value}" for name, value in (known | changes).items()]

  return make


def test_lines_become_vectors_in_the_shared_space(
  mmjax, flags, workdir, tmp_path
):
  result = mmjax("embed", *flags())

  assert result.status == 0, result.err
  assert "step 0, pool shared" in result.out
  assert "image: 3 x 8" in result.out
  with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
    found = dict(file)
  assert set(found) == {"image", "text", "ids"}
  config = arguments.load_saved(workdir, [])
  made, _, state = checkpoints.restore(config, workdir, "latest")
  variables = jax.tree.map(np.asarray, state.ema_variables)
  tokenizer = made.parts.pipelines["main"].tokenizer
  ids = np.stack([tokenizer.encode(text, 12) for text in TEXTS])

  @jax.jit
  def project(variables, ids):
    mask = ids != tokenizer.pad_id
    call = dict(mask=mask, train=False, method="encode")
    sequence = made.parts.model.apply(variables, "text", ids, **call)
    return made.parts.model.apply(variables, "text", sequence, method="project")

  np.testing.assert_allclose(
    found["text"], project(variables, ids), rtol=1e-4, atol=1e-5
  )
  # There already.
  assert mmjax("embed", *flags()).status == 2
  more = flags(inputs=tmp_path, modality="image", overwrite=True)
  assert "no image among 1 files" in mmjax("embed", *more).err


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(out="e.npy"), "vectors are written as .npz"),
    (dict(out="/none/e.npz"), "no folder '/none'"),
    (dict(pool="share"), "Unknown pool 'share'. Did you mean 'shared'"),
    (dict(batch_size=0), "batch_size=0"),
    (dict(modality="sound"), "Unknown modality 'sound'"),
    (dict(inputs="/none"), "--inputs=/none: no such file or folder"),
    (dict(inputs="{inputs}/0.png"), "is a single file"),
    (dict(inputs="{empty}"), "the file is empty"),
    (dict(step="last"), "step='last'"),
    (dict(modality="audio"), "no line has audio"),
  ],
)
def test_bad_flags_are_refused_before_the_checkpoint_is_read(
  refused, flags, inputs, tmp_path, changes, message
):
  empty = tmp_path / "empty.jsonl"
  empty.write_text("\n\n")
  places = dict(inputs=inputs, empty=empty)
  changes = {k: str(v).format(**places) for k, v in changes.items()}

  said = refused("embed", *flags(**{"workdir": "/none", **changes}))

  assert message in said
  assert [p.name for p in tmp_path.iterdir()] == ["empty.jsonl"]


def test_a_modality_without_encoder_is_refused_with_those_there_are(
  refused, flags, inputs, tmp_path
):
  path = inputs / "sound.jsonl"
  path.write_text('{"audio": "0.png"}')

  message = refused("embed", *flags(inputs=path))

  assert "no encoder of 'audio', it reads ['image', 'text']" in message
  assert not list(tmp_path.iterdir())
