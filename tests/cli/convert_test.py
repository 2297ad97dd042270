import pytest

from mmjax.cli import main
from tests.convert import tiny_bert


@pytest.mark.slow  # Traces a model, twice.
def test_there_and_back(tmp_path, capsys):
  tiny_bert.write(tmp_path / "hf")
  run, out = tmp_path / "run", tmp_path / "out"
  assert main.main(["convert", f"--from=hf:{tmp_path}/hf", f"--to={run}"]) == 0
  said = capsys.readouterr().out
  for name in tiny_bert.SHAPES:
    assert name.replace(".0.", ".{i}.") in said
  assert f"all of {len(tiny_bert.SHAPES)} tensors" in said
  assert main.main(["convert", f"--from={run}", f"--to=hf:{out}"]) == 0
  assert "all of" in capsys.readouterr().out
  assert sorted(f.name for f in out.iterdir()) == [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
  ]


@pytest.mark.parametrize(
  "argv, said",
  [
    (["--from=hf:nowhere", "--to=run"], "No file at 'nowhere'"),
    (["--from=big_visio:x", "--to=run"], "Did you mean 'big_vision'"),
    (["--from=hf:", "--to=run"], "expected a workdir, or one of"),
    (["--from=one", "--to=two"], "One of --from and --to is a workdir"),
    (["--from=hf:x", "--to=hf:y"], "One of --from and --to is a workdir"),
    (["--from=hf:x", "--to=y", "--step=3"], "--step is for exports only"),
    (["--from=x", "--to=hf:y", "--tokenizer=z"], "for imports only"),
    (["--from=nowhere", "--to=hf:y"], "No run at 'nowhere'"),
    (["--from=nowhere", "--to=safetensors:y"], "No run in 'nowhere'"),
    (["--to=x"], "--from is missing"),
  ],
)
def test_bad_arguments_are_said(tmp_path, monkeypatch, capsys, argv, said):
  monkeypatch.chdir(tmp_path)
  assert main.main(["convert", *argv]) == 2
  assert said in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_pickle_is_refused(tmp_path, capsys):
  (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
  argv = ["convert", f"--from=hf:{tmp_path}", f"--to={tmp_path}/run"]
  assert main.main(argv) == 2
  said = capsys.readouterr().err
  assert "nothing is unpickled" in said and "weights_only=True" in said
  assert not (tmp_path / "run").exists()


def test_an_unknown_family_and_dtype_are_refused(tmp_path, capsys):
  tiny_bert.write(tmp_path / "hf")
  argv = ["convert", f"--from=hf:{tmp_path}/hf", f"--to={tmp_path}/run"]
  assert main.main([*argv, "--family=bart"]) == 2
  assert "Unknown family 'bart'. Did you mean 'bert'" in capsys.readouterr().err
