from types import SimpleNamespace

from mmjax.build import training
from mmjax.cli import progress
from mmjax.data import tokenizer_files
from mmjax.data.tokenizer import TextTokenizer


def test_line_counts_bad_examples_if_there_are_any(capsys):
  shown = progress.Progress("train", 10)

  shown.on_log({"kind": "train", "step": 4, "loss": 1.5})
  shown.on_log({"kind": "train", "step": 5, "loss": 1.5, "bad_examples": 1234})

  lines = capsys.readouterr().out.splitlines()
  assert "bad" not in lines[-2]
  assert "loss 1.5  bad examples 1,234" in lines[-1]


def test_special_tokens_that_were_appended_are_said():
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]
  text = tokenizer_files.word_piece(entries, lowercase=True)
  made = [TextTokenizer.load("starter"), TextTokenizer(text), None]
  pipelines = {i: SimpleNamespace(tokenizer=t) for i, t in enumerate(made)}
  run = training.Run.__new__(training.Run)
  parts = SimpleNamespace(pipelines=pipelines)
  run.experiment = SimpleNamespace(parts=parts)

  (said,) = progress._appended(run)

  assert "WordPiece, 6 tokens" in said and "with <mask> appended" in said
