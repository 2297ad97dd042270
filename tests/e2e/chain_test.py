"""The main job by the command line: each stage starts from the one before."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmjax.build import checkpoints
from mmjax.cli import main
from mmjax.core import trees
from mmjax.data.tokenizer import TextTokenizer

pytestmark = pytest.mark.slow
TINY = Path(__file__).with_name("tiny.py")
STEPS = ("--config.train.num_steps=4", "--config.checkpoint.every_steps=2")
TEXTS = [f"{c} {s}" for c in ("red", "blue") for s in ("circle", "square")]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
  """The folder of all runs; each command has to succeed."""
  root = tmp_path_factory.mktemp("runs")

  def run(*argv):
    assert main.main([str(a) for a in argv]) == 0, argv

  def train(stage, *flags):
    run(
      "train",
      f"--config={TINY}:{stage},evaluated",
      f"--workdir={root / stage}",
      *STEPS,
      *flags,
    )

  texts, tokenizer = root / "texts.txt", root / "tok.json"
  texts.write_text("\n".join(TEXTS))
  run(
    "tokenizer",
    "train",
    f"--source={texts}",
    "--vocab_size=280",
    f"--out={tokenizer}",
  )
  train("tokenizer")
  train(
    "pretrain",
    f"--config.data.text.tokenizer={tokenizer}",
    f"--config.init.from_checkpoint={root / 'tokenizer'}",
    "--config.init.new=('(?!visual_tokenizer/).*',)",
  )
  train(
    "finetune",
    f"--config.init.from_checkpoint={root / 'pretrain'}",
    "--config.init.new=('heads_label/.*',)",
    "--config.init.dropped=('(?!encoders_image/).*',)",
  )
  run("evaluate", f"--workdir={root / 'pretrain'}", "--only=retrieval")
  run("evaluate", f"--workdir={root / 'finetune'}", "--step=2")
  run("report", f"--workdir={root}")
  return root


def variables(workdir, step="latest"):
  source = checkpoints.open_checkpoints(workdir)
  params, collections = source.restore_params(step)
  source.close()
  return trees.flatten({"params": params, "collections": collections})


def starting(names, prefix):
  return {n: v for n, v in names.items() if n.split("/")[1] == prefix}


def test_pretraining_keeps_the_visual_tokenizer_bit_for_bit(chain):
  before = variables(chain / "tokenizer")
  after = variables(chain / "pretrain")

  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_finetuning_starts_from_pretraining_and_keeps_what_is_frozen(chain):
  before = starting(variables(chain / "pretrain"), "encoders_image")
  after = starting(variables(chain / "finetune"), "encoders_image")

  assert after.keys() == before.keys()
  changed = {n for n, v in after.items() if np.any(v != before[n])}
  frozen = {n for n in after if "/stem/" in n}
  assert frozen and not changed & frozen
  # Four small steps: what is trained moved, and did not start afresh.
  kernel = "params/encoders_image/stack/layer_00/mlp/out/kernel"
  assert kernel in changed
  assert np.abs(after[kernel] - before[kernel]).max() < 0.1


def test_the_text_tokenizer_is_the_one_that_was_trained(chain):
  ours = TextTokenizer.load(chain / "tok.json")
  source = checkpoints.open_checkpoints(chain / "pretrain")
  meta = source.read_meta()
  source.close()

  assert TextTokenizer.load(chain / "pretrain" / "tokenizer.json").id == ours.id
  assert meta["text_tokenizer"] == ours.id


def test_a_run_with_another_text_tokenizer_is_refused_with_both_ids(
  chain, tmp_path, capsys
):
  status = main.main(
    [
      "train",
      f"--config={TINY}:pretrain",
      f"--workdir={tmp_path / 'new'}",
      f"--config.init.from_checkpoint={chain / 'pretrain'}",
    ]
  )

  message = capsys.readouterr().err
  assert status == 2
  assert TextTokenizer.load(chain / "tok.json").id in message
  assert TextTokenizer.load("starter").id in message
  assert not (tmp_path / "new").exists()


def results(workdir, step):
  path = workdir / "evaluations" / f"{step:08d}" / "metrics.json"
  return json.loads(path.read_text())


@pytest.mark.parametrize(
  ("stage", "prefixes"),
  [
    ("tokenizer", {"pictures"}),
    ("pretrain", {"loss", "retrieval", "masked"}),
    ("finetune", {"shapes"}),
  ],
)
def test_every_stage_is_evaluated_at_its_end(chain, stage, prefixes):
  values = results(chain / stage, 4)

  assert {name.split("/")[0] for name in values} == prefixes
  assert all(np.isfinite(v) for v in values.values())


def test_evaluation_can_be_left_to_its_own_command(chain, tmp_path):
  workdir = tmp_path / "W"

  status = main.main(
    [
      "train",
      f"--config={TINY}:tokenizer,evaluated",
      f"--workdir={workdir}",
      "--config.log.evaluate_at_end=false",
      *STEPS,
    ]
  )

  assert status == 0
  assert not (workdir / "evaluations").exists()
  assert main.main(["evaluate", f"--workdir={workdir}"]) == 0
  assert results(workdir, 4) == results(chain / "tokenizer", 4)


def test_evaluation_of_a_checkpoint_says_what_training_said(chain):
  rows = map(
    json.loads, (chain / "pretrain" / "metrics.jsonl").read_text().splitlines()
  )
  last = [row for row in rows if row["kind"] == "eval"][-1]

  values = results(chain / "pretrain", 4)

  ours = {n: v for n, v in values.items() if n.startswith("retrieval/")}
  assert ours
  for name, value in ours.items():
    assert value == pytest.approx(last[name], rel=1e-4, abs=1e-6), name


def test_an_older_checkpoint_can_be_evaluated(chain):
  assert "shapes/top1" in results(chain / "finetune", 2)


def test_the_report_is_one_file_with_every_stage(chain):
  page = (chain / "report.html").read_text()

  for stage in ("tokenizer", "pretrain", "finetune"):
    assert stage in page
  assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', page)


def test_the_same_command_changes_nothing_in_a_finished_run(chain):
  workdir = chain / "tokenizer"
  before = variables(workdir)

  status = main.main(
    ["train", f"--config={TINY}:tokenizer", f"--workdir={workdir}", *STEPS]
  )

  assert status == 0
  assert variables(workdir).keys() == before.keys()
  np.testing.assert_array_equal(
    variables(workdir)["params/visual_tokenizer/patches/kernel"],
    before["params/visual_tokenizer/patches/kernel"],
  )
