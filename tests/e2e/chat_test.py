"""A chat as a user has it: a file of conversations, training, a terminal."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.cli import main

CONFIG = Path(__file__).parents[2] / "configs/finetune/chat.py:tiny"


def _run(*argv):
  try:
    return main.main([str(a) for a in argv])
  except SystemExit as e:
    return e.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Eight conversations about noise, in the documented format."""
  folder = tmp_path_factory.mktemp("talk")
  rng = np.random.default_rng(0)
  lines = []
  for i in range(8):
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
    asked = [{"type": "image", "path": f"{i}.png"}]
    asked.append({"type": "text", "text": "What is this?"})
    messages = [
      {"role": "user", "content": asked},
      {"role": "assistant", "content": f"noise {i}"},
    ]
    lines.append(json.dumps({"messages": messages}))
  (folder / "train.jsonl").write_text("\n".join(lines))
  return folder


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run") / "chat"
  data = ("source=conversations", "split=train", f"path={folder}")
  status = _run(
    "train",
    f"--config={CONFIG}",
    f"--workdir={workdir}",
    *(f"--config.data.{field}" for field in data),
    "--config.train.num_steps=1",
    "--config.optimizer.warmup_steps=0",
    "--config.data.conversation.pack=false",
  )
  assert status == 0
  return workdir


@pytest.mark.slow
def test_lines_from_a_pipe_are_answered(workdir, folder, monkeypatch, capfd):
  lines = folder / "lines.txt"
  lines.write_text(f"/image {folder / '0.png'}\nWhat is this?\n/quit\n")
  with lines.open() as stdin:
    monkeypatch.setattr("sys.stdin", stdin)
    capfd.readouterr()
    status = _run(
      "generate", "--chat", f"--workdir={workdir}", "--max_tokens=3"
    )
  out = capfd.readouterr().out
  assert status == 0
  assert "you> What is this?\nmodel> " in out
  assert out.index("goes with the next message") < out.index("What is this?")
  template = json.loads((workdir / "tokenizer.json").read_text())
  assert template["chat_template"]["user"] == "User:"


@pytest.mark.slow
def test_a_broken_line_or_a_wrong_flag_is_one_message(
  workdir, folder, tmp_path, capfd
):
  broken = tmp_path / "train.jsonl"
  line = (folder / "train.jsonl").read_text().splitlines()[0]
  broken.write_text(f"{line.replace('0.png', f'{folder}/0.png')}\n{{\n")
  for argv, problem in (
    (
      (
        "train",
        f"--config={CONFIG}",
        f"--workdir={tmp_path / 'new'}",
        "--config.data.source=conversations",
        f"--config.data.path={broken}",
      ),
      f"{broken}:2: not JSON",
    ),
    (
      ("generate", "--chat", f"--workdir={workdir}", "--prompt=Hi"),
      "leave --prompt out",
    ),
  ):
    capfd.readouterr()
    assert _run(*argv) == 2
    err = capfd.readouterr().err
    assert problem in err and err.count("mmjax: ") == 1
