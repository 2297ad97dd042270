"""The recipe for questions about pictures, tiny: train, evaluate, answer."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mmjax.cli import main

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).resolve().parents[2] / "configs/finetune/vqa.py"
COLORS = ("red", "blue", "teal")
QUESTIONS = 11  # To test on: a batch of 8 and a ragged one.
TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
PARTS = ("encoders.image", "encoders.text", "fusion")
SMALL = [
  *(
    f"--config.model.{part}.size.{name}={value}"
    for part in PARTS
    for name, value in TOWER.items()
  ),
  "--config.model.precision=float32",
  "--config.train.batch_size=8",
  "--config.train.num_steps=4",
  "--config.checkpoint.every_steps=2",
  "--config.evaluators.test_fifth.every_steps=0",
  "--config.evaluators.test.every_steps=2",
]


def draw(folder, split, count):
  """Squares of each colour in turn, and a question about each."""
  images = folder / split / "images"
  images.mkdir(parents=True)
  rows = []
  for i in range(count):
    color = COLORS[i % len(COLORS)]
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).rectangle((i, i, i + 30, i + 30), fill=color)
    picture.save(images / f"{i}.png")
    asked = COLORS[i // len(COLORS) % len(COLORS)]
    rows.append(
      ["what is the color of the shape?", color, i]
      if i % 2
      else [f"is it {asked}?", "yes" if asked == color else "no", i]
    )
  (folder / split / "questions.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The workdir of a tiny run on pictures that were just drawn."""
  root = tmp_path_factory.mktemp("vqa")
  data, workdir = root / "data", root / "run"
  data.mkdir()
  (data / "answers.txt").write_text("\n".join((*COLORS, "yes", "no")))
  draw(data, "train", 18)
  draw(data, "test", QUESTIONS)
  flags = [f"--config={CONFIG}:scratch", f"--workdir={workdir}"]
  flags += [f"--config.data.path={data}", *SMALL]
  assert main.main(["train", *flags]) == 0
  return workdir


def evaluated(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [r for r in map(json.loads, lines) if r["kind"] == "eval"]


def test_evaluate_says_what_the_last_evaluation_in_training_said(
  trained, capsys
):
  during = evaluated(trained)
  assert [row["step"] for row in during] == [2, 4]
  shutil.rmtree(trained / "evaluations")
  capsys.readouterr()

  assert main.main(["evaluate", f"--workdir={trained}"]) == 0

  file = trained / "evaluations" / "00000004" / "metrics.json"
  afterwards = json.loads(file.read_text())
  assert afterwards == {name: during[-1][name] for name in afterwards}
  # Every question once, the ragged last batch too.
  right = afterwards["test/top1"] * QUESTIONS
  assert right == pytest.approx(round(right), abs=1e-6)
  assert f"{100 * afterwards['test/top1']:.1f}%" in capsys.readouterr().out
