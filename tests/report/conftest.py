"""Workdirs as runs leave them, written by hand."""

import base64
import io
import json

import pytest
from PIL import Image

CHANCE = {"mlm": 8.5, "vtp": 6.2, "tokenizer": None}


def png(colour, size=64):
  """A picture as it stands in an artifact file."""
  file = io.BytesIO()
  Image.new("RGB", (size, size), colour).save(file, "PNG")
  return {"png": base64.b64encode(file.getvalue()).decode("ascii")}


def start_row(**changes):
  return {
    "kind": "start",
    "step": 0,
    "time": 1000.0,
    "stage": "2/3 pretraining",
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "device": "cpu x1",
    "num_params": 2_412_345,
    "trainable_params": 1_900_000,
    "num_steps": 40,
    "batch_size": 64,
    "flops_per_example": 1.5e9,
    "init": "loaded 31 of 143 parameters\n  visual_tokenizer: 31 loaded",
    "chance": {"mlm": CHANCE["mlm"], "vtp": CHANCE["vtp"]},
    **changes,
  }


def train_row(step, **changes):
  return {
    "kind": "train",
    "step": step,
    "time": 1000.0 + 2 * step,
    "loss": 9.0 - step / 10,
    "mlm/loss": 8.0 - step / 10,
    "vtp/loss": 6.0 - step / 20,
    "mlm/accuracy": step / 100,
    "grad_norm": 1.0,
    "step_secs": 0.5,
    "examples_per_sec": 128.0,
    "input_wait_fraction": 0.02,
    "mfu": 0.4,
    **changes,
  }


class Workdir:
  """Writes the files of one run."""

  def __init__(self, folder):
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)

  def config(self, **values):
    values = values or {
      "stage": "2/3 pretraining",
      "train": {"num_steps": 40, "batch_size": 64},
      "model": {"fusion": {}, "encoders": {"image": {"name": "vit"}}},
      "init": {"new": ["a/.*", "b"]},
    }
    (self.folder / "config.json").write_text(json.dumps(values))
    return self

  def log(self, *rows, end=""):
    text = "".join(json.dumps(row) + "\n" for row in rows) + end
    (self.folder / "metrics.jsonl").write_text(text)
    return self

  def whole_log(self, **changes):
    rows = [train_row(step) for step in (1, 10, 20, 30, 40)]
    return self.log(start_row(**changes), *rows)

  def step(self, step):
    folder = self.folder / "evaluations" / f"{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

  def metrics(self, step, **values):
    named = {k.replace("__", "/"): v for k, v in values.items()}
    (self.step(step) / "metrics.json").write_text(json.dumps(named))
    return self

  def artifact(self, step, evaluator, name, kind, data, caption="A caption."):
    content = {
      "evaluator": evaluator,
      "name": name,
      "kind": kind,
      "title": f"Title of {name}",
      "caption": caption,
      "data": data,
    }
    path = self.step(step) / f"{evaluator}.{name}.json"
    path.write_text(json.dumps(content))
    return self


@pytest.fixture
def workdir(tmp_path):
  """An empty run folder to write into."""
  return Workdir(tmp_path / "pretrain")


@pytest.fixture
def make_workdir(tmp_path):
  """Makes run folders of a given name below `tmp_path / "runs"`."""
  return lambda name: Workdir(tmp_path / "runs" / name)


@pytest.fixture
def make_png():
  """Makes a picture as it stands in an artifact file."""
  return png


@pytest.fixture
def make_train_row():
  """Makes a row of a training step."""
  return train_row


@pytest.fixture
def make_start_row():
  """Makes the first row of a log."""
  return start_row


class Page:
  """What a browser would find in a page."""

  VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}

  def __init__(self, text):
    from html.parser import HTMLParser

    self.tags, self.texts, self.unclosed = [], [], []
    parser = HTMLParser()
    parser.handle_starttag = self._open
    parser.handle_startendtag = lambda tag, attrs: self.tags.append(
      (tag, dict(attrs))
    )
    parser.handle_endtag = self._close
    parser.handle_data = self._data
    parser.feed(text)
    parser.close()

  def _open(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.unclosed.append(tag)

  def _close(self, tag):
    assert self.unclosed, f"</{tag}> closes nothing"
    assert self.unclosed.pop() == tag, f"</{tag}> closes another tag"

  def _data(self, data):
    if "style" not in self.unclosed:
      self.texts.append(data)

  @property
  def text(self):
    """All text, runs of white space as one space."""
    return " ".join(" ".join(self.texts).split())

  def all(self, tag, name=""):
    """Attributes of each tag of a kind that has a class."""
    return [
      attrs
      for found, attrs in self.tags
      if found == tag and (not name or name in attrs.get("class", "").split())
    ]


@pytest.fixture
def read_page():
  """Parses a page; every tag has to be closed in order."""

  def read(text):
    page = Page(text)
    assert page.unclosed == []
    return page

  return read
