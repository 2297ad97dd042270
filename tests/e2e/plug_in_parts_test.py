"""An encoder, a fusion, a source, a transform and an evaluator of the user's.

All from one file outside of the package, named in a config, in one run.
"""

import json
import textwrap

import pytest

from mmjax.build import checkpoints, settings, training
from mmjax.core import config as config_lib
from mmjax.core import errors

PARTS = """
import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.core.batch import FieldSpec
from mmjax.core.sequence import Sequence


class Rows(nn.Module):
  \"\"\"A token for each row of the picture.\"\"\"

  width: int

  @nn.compact
  def __call__(self, inputs, *, mask=None, hidden=None, train):
    b, h = inputs.shape[:2]
    x = inputs.reshape(b, h, -1).astype(jnp.float32) / 255.0
    x = nn.Dense(self.width, name="rows")(x)
    return Sequence(x, jnp.ones((b, h), bool), num_content=h)

  def pool(self, sequence):
    return sequence.x.mean(axis=1)


def rows(*, image_size, width=8):
  assert image_size == 16  # Comes from the data.
  return Rows(width)


class Scale(nn.Module):
  \"\"\"Scales each modality by a learned number.\"\"\"

  @nn.compact
  def __call__(self, sequences, *, train):
    return {
      name: s.replace(x=s.x * self.param(name, nn.initializers.ones, ()))
      for name, s in sequences.items()
    }


def scale():
  return Scale()


class Stripes:
  \"\"\"Black pictures, and white ones.\"\"\"

  class_names = {"kind": ("black", "white")}

  def __init__(self, split, path):
    self.size = {"train": 32, "test": 5}[split]

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    value = 255 * (index % 2)
    return {
      "image": np.full((16, 16, 3), value, np.uint8),
      "kind": ("black", "white")[index % 2],
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness:
  \"\"\"Adds the mean of the picture.\"\"\"

  scale: float = 1.0

  def specs(self):
    return {"brightness": FieldSpec((), "float32", "", "mean")}

  def __call__(self, example, rng, *, train):
    mean = np.float32(example["image"].mean() * self.scale)
    return {**example, "brightness": mean}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
  \"\"\"How many of its split the head calls white.\"\"\"

  batches: object
  threshold: float = 0.0

  def run(self, predict, params):
    white = total = 0
    for batch in self.batches():
      real = batch["example_mask"]
      said = predict(params, self._say, batch)[real]
      white += int((said[:, 1] - said[:, 0] > self.threshold).sum())
      total += int(real.sum())
    yield "white", white
    yield "of", total

  def _say(self, apply, batch):
    return apply("head", "label", apply("pool", "image", ("image",)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("parts")
  (folder / "my_parts.py").write_text(textwrap.dedent(PARTS))
  return folder


def edited(folder, **changes):
  c = config_lib.from_plain(
    {
      "search_path": str(folder),
      "data": {
        "source": "my_parts:Stripes",
        "image": {
          "size": 16,
          "crop_scale": (1.0, 1.0),
          "flip": False,
          "color_jitter": 0.0,
        },
        "label": {"field": "kind"},
        "extra": ({"name": "my_parts:Brightness", "scale": 2.0},),
      },
      "model": {
        "encoders": {"image": {"name": "my_parts:rows", "width": 4}},
        "fusion": {"name": "my_parts:scale"},
      },
      "tasks": {
        "main": {
          "objectives": {
            "label": {"name": "classification", "given": ("image",)}
          }
        }
      },
      "train": {"num_steps": 12, "batch_size": 8},
      "optimizer": {"peak_lr": 0.1, "weight_decay": 0.0},
      "log": {"every_steps": 4, "tensorboard": False},
      "evaluators": {
        "mine": {"name": "my_parts:Counted", "data": {"split": "test"}}
      },
    }
  )
  with c.unlocked():
    c.update(changes)
  config_lib.search(str(folder))
  return settings.resolve(c)


def test_parts_of_the_users_own_make_a_run(folder):
  config = edited(folder)
  run = training.Run(config, folder / "run")
  assert "brightness" in run.experiment.parts.pipelines["main"].specs
  outcome = run.execute()

  # Of five pictures, two are white.
  assert dict(outcome.results) == {"mine/white": 2.0, "mine/of": 5.0}
  lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
  assert rows[-1]["label/loss"] < 0.5 * rows[0]["label/loss"]
  # Options have defaults that the saved config states.
  saved = json.loads((folder / "run" / "config.json").read_text())
  assert saved["evaluators"]["mine"]["threshold"] == 0.0

  _, again = checkpoints.evaluate(
    config, folder / "run", "latest", (), pictures=True
  )
  assert again == dict(outcome.results)
  names = run.experiment.trainable
  assert {"encoders_image/rows/kernel", "fusion/image"} <= set(names)


@pytest.mark.parametrize(
  "section, message",
  [
    (dict(name="my_parts:Rowz"), "Did you mean 'Rows'"),
    (dict(name="my_partz:rows"), "my_partz"),
    (dict(name="my_parts:rows", widht=3), "Did you mean 'width'"),
  ],
)
def test_mistakes_in_their_names_are_explained(folder, section, message):
  def build():
    model = {
      "encoders": {"image": section},
      "fusion": {"name": "my_parts:scale"},
    }
    training.Run(edited(folder, model=model), folder / "wrong")

  with pytest.raises(errors.UserError, match=message):
    build()
