import json

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from mmjax.train import writers


def _rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def _jsonl(path, rows, resume_step=None):
  writer = writers.JsonlWriter(path, resume_step)
  for row in rows:
    writer.write(row)
  writer.close()


def _scalars(folder):
  """Reads event files by their framing: u64 size, crc, record, crc."""
  found, starts = {}, []
  for path in sorted(folder.glob("events.*")):
    content, at = path.read_bytes(), 0
    while at < len(content):
      size = int.from_bytes(content[at : at + 8], "little")
      event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
      at += size + 16
      if event.HasField("session_log"):
        starts.append(event.step)
      for value in event.summary.value:
        found[value.tag, event.step] = value.simple_value
  return found, starts


def test_one_json_object_per_line(tmp_path):
  path = tmp_path / "run" / "metrics.jsonl"
  rows = [{"kind": "train", "step": 1, "loss": 0.5}, {"step": 2, "a": [1]}]

  _jsonl(path, rows)

  assert _rows(path) == rows


def test_line_is_in_the_file_when_write_returns(tmp_path):
  writer = writers.JsonlWriter(tmp_path / "m.jsonl")

  writer.write({"step": 1})

  assert _rows(tmp_path / "m.jsonl") == [{"step": 1}]
  writer.close()
  writer.close()


def test_numbers_of_arrays_are_plain_numbers(tmp_path):
  row = {
    "step": np.int64(3),
    "loss": np.float32(0.5),
    "norm": jnp.asarray(2.0),
    "half": jnp.asarray(1.5, jnp.bfloat16),
    "chance": {"mlm": np.float64(7.0)},
    "ok": np.bool_(True),
  }

  _jsonl(tmp_path / "m.jsonl", [row])

  assert _rows(tmp_path / "m.jsonl") == [
    {
      "step": 3,
      "loss": 0.5,
      "norm": 2.0,
      "half": 1.5,
      "chance": {"mlm": 7.0},
      "ok": True,
    }
  ]


def test_numbers_that_json_lacks_are_words_that_float_reads(tmp_path):
  values = [float("nan"), np.float32("inf"), float("-inf")]

  _jsonl(tmp_path / "m.jsonl", [{"step": 1, "values": values}])

  (row,) = _rows(tmp_path / "m.jsonl")
  assert row["values"] == ["nan", "inf", "-inf"]
  np.testing.assert_array_equal([float(v) for v in row["values"]], values)


def test_resume_drops_rows_of_later_steps(tmp_path):
  path = tmp_path / "m.jsonl"
  _jsonl(path, [{"step": s} for s in (0, 5, 10, 15)])

  _jsonl(path, [{"step": 11}], resume_step=10)

  assert [row["step"] for row in _rows(path)] == [0, 5, 10, 11]
  assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_half_written_last_line_is_dropped(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"step": 1}\n{"step": 2, "lo')

  _jsonl(path, [{"step": 2}])

  assert _rows(path) == [{"step": 1}, {"step": 2}]


def test_tensorboard_gets_the_numbers_of_train_and_eval_rows(tmp_path):
  writer = writers.TensorBoardWriter(tmp_path)
  writer.write({"kind": "start", "step": 0, "num_params": 10})
  writer.write({"kind": "train", "step": 3, "time": 1.0, "loss": 0.5})
  writer.write(
    {"kind": "eval", "step": 3, "a/acc": np.float32(0.25), "name": "x"}
  )
  writer.flush()
  writer.close()

  assert _scalars(tmp_path)[0] == {("loss", 3): 0.5, ("a/acc", 3): 0.25}


def test_tensorboard_purges_what_follows_the_resumed_step(tmp_path):
  writer = writers.TensorBoardWriter(tmp_path, resume_step=7)
  writer.close()

  assert _scalars(tmp_path)[1] == [8]


@pytest.mark.parametrize("tensorboard", [True, False])
def test_open_writers_writes_to_the_workdir(tmp_path, tensorboard):
  writer = writers.open_writers(tmp_path, tensorboard=tensorboard)
  writer.write({"kind": "train", "step": 1, "loss": 2.0})
  writer.flush()
  writer.close()

  assert _rows(tmp_path / "metrics.jsonl")[0]["loss"] == 2.0
  assert (tmp_path / "tensorboard").is_dir() == tensorboard
  assert isinstance(writer, writers.MetricWriter)
