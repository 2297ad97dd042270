import pytest


@pytest.fixture
def train(refused, tiny, tmp_path):
  """`train(*flags)` expects a refusal that leaves no workdir."""

  def run(*flags):
    workdir = tmp_path / "workdir"
    message = refused("train", tiny("finetune"), f"--workdir={workdir}", *flags)
    assert not workdir.exists()
    return message

  return run


@pytest.mark.parametrize(
  "flags, text",
  [
    (["--coordinator=h:1"], "--processes=N and --process=I"),
    (["--coordinator=h", "--processes=2", "--process=0"], "HOST:PORT"),
    (["--processes=2", "--process=1"], "--coordinator=HOST:PORT"),
    (["--dead_secs=0"], "--dead_secs=0.0"),
    (["--watchdog_port=70000"], "0 to 65535"),
    (["--proceses=2"], "'--processes'"),
  ],
)
def test_flags_that_make_no_job_are_refused(train, flags, text):
  assert text in train(*flags)


def test_process_that_would_train_alone_beside_others_is_refused(
  train, monkeypatch
):
  for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():
    monkeypatch.setenv(name, value)

  message = train()

  assert "Slurm has 4 processes in this job" in message
  assert "would train alone" in message


def test_workdir_that_is_no_folder_is_refused(refused, tiny):
  message = refused("train", tiny("finetune"), "--workdir=file://host/run")

  assert "'file://host/run'" in message and "Mount it" in message
