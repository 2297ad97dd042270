import re

import pytest

from mmjax.bench import rounds, suite, suite_gpu, suite_rows
from mmjax.cli import main

FAST = suite_rows.Timed("vit", "bfloat16")
ROW = suite_rows.Row(
  "1", "what", "vit", suite_rows.VIT, FAST, must=2.0, goal=3.0
)
AT_MOST = suite_rows.Row(
  "2", "what", "vit", suite_rows.VIT, FAST, 0.8, 0.5, suite_rows.TEMP, True
)


def test_the_table_has_all_18_rows():
  numbers = [row.number for row in suite_rows.ROWS]
  assert len(set(numbers)) == len(numbers)
  whole = {int(re.sub(r"[abc]$", "", number)) for number in numbers}
  assert whole == set(range(1, 19))
  for row in suite_rows.ROWS:
    assert row.goal <= row.must if row.at_most else row.goal >= row.must


def test_a_number_without_a_letter_is_all_of_its_rows():
  chosen = suite.choose(["4", "3b"])
  assert [row.number for row in chosen] == ["3b", "4a", "4b"]


def test_who_is_compared_twice_runs_once():
  rows = suite.choose(["4", "5", "18"])
  names = [member.name for member in suite.grouped(rows, "vit")]
  assert sorted(names) == sorted(
    [
      "mmjax vit bfloat16",
      "mmjax vit float32",
      "big_vision vit bfloat16",
      "big_vision vit float32",
      "timm vit bfloat16",
      "timm vit float32",
    ]
  )


@pytest.mark.parametrize(
  "row, value, said",
  [
    (ROW, 3.0, "goal"),
    (ROW, 2.92, "goal"),  # Within 3 %.
    (ROW, 2.9, "must"),
    (ROW, 1.95, "must"),
    (ROW, 1.93, "MISS"),
    (AT_MOST, 0.51, "goal"),
    (AT_MOST, 0.52, "must"),
    (AT_MOST, 0.82, "must"),
    (AT_MOST, 0.83, "MISS"),
  ],
)
def test_a_verdict_leaves_three_percent(row, value, said):
  assert suite.verdict(value, row) == said


def test_rows_say_their_ratio_or_why_there_is_none():
  first = rounds.Result(
    suite_rows.VIT.name, (4.0, 5.0), facts={"temp_bytes": 60}
  )
  second = rounds.Result(FAST.name, (2.0, 2.0), facts={"temp_bytes": 100})
  results = {first.name: first, second.name: second}
  speed, temp = (suite.outcome(row, results) for row in (ROW, AT_MOST))
  assert speed["ratio"]["median"] == 2.25 and speed["verdict"] == "must"
  assert temp["ratio"]["median"] == 0.6 and temp["verdict"] == "must"
  results[FAST.name] = rounds.Result(FAST.name, missing="pip install timm")
  gone = suite.outcome(ROW, results)
  assert gone["verdict"] == "not run: pip install timm"
  assert suite._cells(gone)[-4:-1] == ["-", ">= 2.00", ">= 3.00"]


def test_dry_runs_list_what_would_run(capsys):
  assert main.main(["bench", "--suite=cpu", "--rows=11,16", "--dry_run"]) == 0
  out = capsys.readouterr().out
  assert out.count("mmjax masked:replace float32") == 1
  assert "tf.data, float32" in out and "vit" not in out
  assert main.main(["bench", "--suite=gpu", "--dry_run"]) == 0
  out = capsys.readouterr().out
  for model in suite_gpu.MODELS:
    assert f"{model.name}: {model.config}, {model.batch_size} examples" in out


@pytest.mark.slow
def test_without_a_gpu_its_suite_is_refused(capsys):
  assert main.main(["bench", "--suite=gpu"]) == 2
  out, err = capsys.readouterr()
  assert not out and "needs one GPU of NVIDIA" in err and "'cpu'" in err


def test_gpu_table_says_what_is_missing():
  figures = {
    "batch_size": 128,
    "examples_per_sec": 5000.0,
    "mfu_datasheet": 0.52,
    "mfu": 0.65,
    "temp_bytes": 3 * 2**30,
    "flash_calls": 24,
    "flash_bias_calls": 0,
  }
  models = {m.name: {"missing": "no time left"} for m in suite_gpu.MODELS}
  models["ViT-B/16"] = figures
  small, large = suite_gpu.MEMORY
  sizes = dict(temp_bytes=10 * 2**30, argument_bytes=0)
  text = suite_gpu.describe(
    {
      "machine": dict(cores=2, processor="p", python="3.13", load_before=0.0),
      "versions": {"jax": "1"},
      "device": {"device": "NVIDIA H100"},
      "models": models,
      "memory": {small: sizes, large: {**sizes, "temp_bytes": 11 * 2**30}},
      "secs": 60.0,
    }
  )
  assert re.search(
    r"ViT-B/16 +128 +5,000 +52.0% +33% +50% +65.0% +3.0 +24 +0", text
  )
  assert re.search(r"ViT-L/16 +no time left", text)
  assert "ratio 1.10, must <= 1.2" in text
