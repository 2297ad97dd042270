"""What the flags of `mmjax generate --out` mean; drawing has its own tests."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmjax.build import checkpoints, picture_generation
from mmjax.cli import arguments

PROMPT = "--prompt=red apple"


@pytest.fixture
def drawn(monkeypatch):
  """Records what is asked for, in place of doing it."""
  asked = []
  monkeypatch.setattr(arguments, "load_saved", lambda workdir, changes: workdir)

  def restore(config, workdir, step):
    asked.append((workdir.name, step))
    return "made", 7, SimpleNamespace(ema_variables="averaged")

  def generator(made, **settings):
    asked.append((made, settings))

    def draw(variables, prompts, *, seed):
      asked.append((variables, prompts, seed))
      gray = np.arange(len(prompts), dtype=np.uint8)[:, None, None, None]
      return np.broadcast_to(gray, (len(prompts), 8, 8, 3))

    return draw

  monkeypatch.setattr(checkpoints, "restore", restore)
  monkeypatch.setattr(picture_generation, "PictureGenerator", generator)
  return asked


def test_pictures_of_the_prompt_are_written_to_the_file(mmjax, drawn, tmp_path):
  out = tmp_path / "apple.png"
  flags = ("--num=3", "--steps=5", "--seed=2", "--temperature=0.5", "--step=9")
  result = mmjax("generate", "--workdir=W", PROMPT, f"--out={out}", *flags)
  assert result.status == 0, result
  assert result.out == f"{out}: 3 of 'red apple'\n"
  assert drawn == [
    ("W", "9"),
    ("made", {"num_steps": 5, "temperature": 0.5}),
    ("averaged", ["red apple"] * 3, 2),
  ]
  # Three tiles of 8 pixels in a row, a border around each.
  sheet = np.asarray(Image.open(out))
  assert sheet.shape == (12, 36, 3)
  assert [sheet[5, 12 * i + 5, 0] for i in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
  "flags, message",
  [
    ((PROMPT, "--out=F.gif"), "--out=F.gif: pictures are written as .png"),
    ((PROMPT, "--out=F.png", "--image=G.png"), "--image and --out"),
    (("--out=F.png",), "--prompt is missing"),
    ((PROMPT, "--out=F.png", "--num=0"), "--num=0, expected 1 or more"),
  ],
)
def test_flags_that_do_not_fit_are_refused_before_the_model_is_read(
  refused, drawn, flags, message
):
  assert message in refused("generate", "--workdir=W", *flags)
  assert not drawn
