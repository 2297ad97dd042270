from mmjax.cli import progress


def test_line_counts_bad_examples_if_there_are_any(capsys):
  shown = progress.Progress("train", 10)

  shown.on_log({"kind": "train", "step": 4, "loss": 1.5})
  shown.on_log({"kind": "train", "step": 5, "loss": 1.5, "bad_examples": 1234})

  lines = capsys.readouterr().out.splitlines()
  assert "bad" not in lines[-2]
  assert "loss 1.5  bad examples 1,234" in lines[-1]
