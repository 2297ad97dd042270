"""Launch scripts: what they would run, with a launcher's program in its place.

Dry runs need none of gcloud, kubectl, Slurm; a `srun` of the test's own shows
what the script does when nodes fail.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "experiments" / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
STARTED = [s for s in SCRIPTS if s.name != "flags.sh"]
COMMON = ("--config=c.py:a", "--workdir=w d", "--config.data.path=a b")


def run(script, *flags, status=0, **environ):
  done = subprocess.run(
    ["bash", str(LAUNCH / script), *flags],
    capture_output=True,
    text=True,
    timeout=60,
    env=os.environ | {"PYTHON": "py"} | environ,
  )
  assert done.returncode == status, done.stderr
  return done.stderr if status else done.stdout


def commands(text):
  return [shlex.split(line) for line in text.splitlines()]


def test_local_trains_alone():
  (command,) = commands(run("local.sh", *COMMON, "--steps=3", "--dry_run"))

  assert command[:4] == ["py", "-m", "mmjax", "train"]
  assert command[4:] == [
    "--config=c.py:a",
    "--workdir=w d",
    "--processes=1",
    "--config.data.path=a b",
    "--config.train.num_steps=3",
  ]


def test_multiprocess_cpu_numbers_its_processes():
  got = commands(
    run("multiprocess_cpu.sh", *COMMON, "--processes=3", "--dry_run")
  )

  assert [c[8] for c in got] == [f"--process={i}" for i in range(3)]
  for command in got:
    assert command[5:8] == [
      "--workdir=w d",
      "--coordinator=localhost:PORT",
      "--processes=3",
    ]
    assert command[-1] == "--config.data.path=a b"


def test_slurm_starts_one_process_a_node():
  text = run(
    "slurm.sbatch",
    *COMMON,
    "--dry_run",
    SLURM_JOB_NODELIST="n[1-4]",
    SLURM_JOB_NUM_NODES="4",
  )
  (command,) = commands(text)

  assert command[0] == "srun"
  assert {"--nodes=4", "--ntasks=4", "--nodelist=n[1-4]"} <= set(command)
  assert command[command.index("py") :] == [
    *("py", "-m", "mmjax", "train"),
    *COMMON,
  ]


def test_tpu_pod_runs_on_all_workers():
  flags = ("--tpu=pod", "--zone=z", "--workers=4", "--setup", "--dry_run")
  setup, train = commands(run("tpu_pod.sh", *COMMON, *flags))

  assert train[:7] == [
    *("gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"),
    "--zone=z",
  ]
  assert train[7] == "--worker=all"
  # What a worker's shell makes of it.
  command = shlex.split(train[8].removeprefix("--command="))
  assert command[:3] == ["cd", "mmjax", "&&"]
  assert "--processes=4" in command and "--config.data.path=a b" in command
  assert "make install" in setup[8]


def test_gke_jobset_is_filled_in():
  text = run(
    "gke_jobset.sh",
    "--image=im",
    "--bucket=bu",
    "--accelerator=tpu-v5-lite-podslice",
    "--topology=4x4",
    "--hosts=4",
    "--chips=4",
    "--slices=2",
    "--config=c.py",
    "--workdir=runs/x",
    "--dry_run",
  )

  assert "$" not in text
  for line in (
    "parallelism: 4",
    "replicas: 2",
    "--processes=8",
    "--workdir=/bucket/runs/x",
    "google.com/tpu: 4",
    "bucketName: bu",
  ):
    assert line in text


def test_gke_jobset_takes_a_url():
  numbers = ("--hosts=4", "--chips=4", "--topology=4x4")
  names = ("--image=im", "--bucket=bu", "--accelerator=a", "--config=c.py")

  text = run(
    "gke_jobset.sh", *names, *numbers, "--workdir=gs://b/x", "--dry_run"
  )

  assert "- --workdir=gs://b/x\n" in text


@pytest.mark.parametrize("script", STARTED, ids=lambda s: s.name)
def test_missing_flag_and_loose_word_are_refused(script):
  assert "is missing" in run(script.name, "--dry_run", status=2)
  assert "'loose'" in run(script.name, "loose", status=2)


@pytest.mark.parametrize("script", STARTED, ids=lambda s: s.name)
def test_help_is_the_comment_on_top(script):
  text = run(script.name, "--help")

  assert f"experiments/launch/{script.name}" in text
  assert "SBATCH" not in text and "set -euo" not in text


def program(folder, name, text):
  file = folder / name
  file.write_text(f"#!/usr/bin/env bash\n{text}\n")
  file.chmod(0o755)


@pytest.fixture
def nodes(tmp_path):
  """Slurm of the test's own: node n2 is down once `srun` failed."""
  program(tmp_path, "scontrol", "printf 'n1\\nn2\\nn3\\n'")
  program(
    tmp_path,
    "sinfo",
    f'case "$*" in *n2*) cat {tmp_path}/n2 2>/dev/null || echo up ;; '
    "*) echo allocated ;; esac",
  )
  program(
    tmp_path,
    "srun",
    f'echo "$*" >>{tmp_path}/srun.log\n'
    f'[ -e {tmp_path}/n2 ] && exit 0\n[ -z "$FAIL" ] && exit 0\n'
    f"{'{'} [ $FAIL = node ] && echo 'down*' >{tmp_path}/n2; {'}'}\nexit 1",
  )
  path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

  def submit(fail, status=0):
    run(
      "slurm.sbatch",
      *COMMON,
      status=status,
      PATH=path,
      FAIL=fail,
      SETTLE_SECS="0",
      SLURM_JOB_ID="7",
      SLURM_JOB_NODELIST="n[1-3]",
    )
    lines = (tmp_path / "srun.log").read_text().splitlines()
    return [
      next(w for w in line.split() if w.startswith("--nodelist"))
      for line in lines
    ]

  return submit


def test_slurm_goes_on_with_the_nodes_that_are_left(nodes):
  assert nodes("node") == ["--nodelist=n1,n2,n3", "--nodelist=n1,n3"]


def test_slurm_that_fails_twice_on_the_same_nodes_gives_up(nodes):
  assert nodes("code", status=1) == ["--nodelist=n1,n2,n3"] * 2


def test_slurm_that_is_done_starts_nothing_more(nodes):
  assert nodes("") == ["--nodelist=n1,n2,n3"]


@pytest.fixture
def fake_python(tmp_path):
  """`python -m mmjax train`: of several, the last one is killed."""
  program(
    tmp_path,
    "python",
    '[ "$1" = -c ] && { echo 1234; exit; }\n'
    'n=1 i=0\nfor a in "$@"; do case $a in --processes=*) n=${a#*=};; '
    "--process=*) i=${a#*=};; esac; done\n"
    f"echo $n.$i >>{tmp_path}/log\n"
    '[ "$n" -gt 1 ] || exit 0\n'
    '[ "$i" = "$((n - 1))" ] && kill -KILL $$\nexit 1',
  )
  return tmp_path


def test_elastic_job_goes_on_with_fewer_processes(fake_python):
  run(
    "multiprocess_cpu.sh",
    *COMMON,
    "--processes=3",
    "--elastic",
    PYTHON=str(fake_python / "python"),
  )

  log = sorted((fake_python / "log").read_text().split(), reverse=True)
  assert log == ["3.2", "3.1", "3.0", "2.1", "2.0", "1.0"]


def test_job_that_is_not_elastic_fails_as_its_process_does(fake_python):
  run(
    "multiprocess_cpu.sh",
    *COMMON,
    PYTHON=str(fake_python / "python"),
    status=1,
  )

  assert sorted((fake_python / "log").read_text().split()) == ["2.0", "2.1"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_script_is_clean(script):
  subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)
  if checker := shutil.which("shellcheck"):
    done = subprocess.run(
      [checker, "-x", str(script)],
      cwd=LAUNCH.parents[1],
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert done.returncode == 0, done.stdout
