import pytest

from mmjax.report import runs


def test_a_run_knows_its_log(workdir):
  run = runs.read_run(workdir.config().whole_log().folder)
  assert run.stage == "2/3 pretraining"
  assert (run.last_step, run.num_steps, run.finished) == (40, 40, True)
  assert run.times == (1000.0, 1080.0)
  assert run.chance == {"mlm": 8.5, "vtp": 6.2}
  assert run.series("mlm/loss") == (
    (1, 7.9),
    (10, 7.0),
    (20, 6.0),
    (30, 5.0),
    (40, 4.0),
  )
  assert run.notes == ()


def test_runs_are_in_the_order_of_their_start(make_workdir, tmp_path):
  for name, time in (("b", 300.0), ("a", 500.0), ("c", 100.0)):
    make_workdir(name).config().whole_log(time=time)
  make_workdir("d").config()  # Never started: at the end.
  (tmp_path / "runs" / "notes").mkdir()
  found = runs.find_runs(tmp_path / "runs")
  assert [run.folder.name for run in found] == ["c", "b", "a", "d"]


def test_a_run_is_not_searched_for_others(workdir):
  workdir.config().whole_log()
  type(workdir)(workdir.folder / "inner").config().whole_log()
  assert [r.folder for r in runs.find_runs(workdir.folder)] == [workdir.folder]


def test_a_half_written_last_line_is_a_note(workdir, make_start_row):
  workdir.config().log(make_start_row(), end='{"kind": "trai')
  run = runs.read_run(workdir.folder)
  assert len(run.rows) == 1
  assert not run.finished
  assert run.notes == (
    "The last line of metrics.jsonl is incomplete; it is left out. A run that "
    "was killed, or is writing right now, leaves it so.",
  )


def test_damaged_lines_are_named(workdir, make_train_row):
  workdir.config()
  lines = ["[1]", '{"kind": "start"}', "\0\0", '{"kind": "train", "step": 3}']
  (workdir.folder / "metrics.jsonl").write_text("\n".join(lines))
  run = runs.read_run(workdir.folder)
  assert run.last_step == 3
  assert run.notes == ("metrics.jsonl has damaged lines (1, 3), left out.",)


@pytest.mark.parametrize(
  "write, note",
  [
    (lambda w: w.config(), "metrics.jsonl is missing: nothing was logged yet."),
    (
      lambda w: w.config().log(),
      "metrics.jsonl is empty: nothing was logged yet.",
    ),
    (
      lambda w: w.whole_log(),
      "config.json is missing: the configuration is not known.",
    ),
  ],
)
def test_what_is_missing_is_a_note(workdir, write, note):
  write(workdir)
  assert runs.read_run(workdir.folder).notes == (note,)


def test_strange_values_in_the_log_do_no_harm(workdir, make_train_row):
  workdir.config().log(
    {"kind": "start", "chance": ["mlm"], "num_steps": "many", "time": "nan"},
    make_train_row(4) | {"step": "x"},
    make_train_row(5, loss=None, time="inf"),
    {"step": 6},
  )
  run = runs.read_run(workdir.folder)
  assert run.series("mlm/loss") == ((5, 7.5),)
  assert run.chance == {}
  assert run.num_steps == 0


def test_no_folder_is_an_error_that_says_what_to_do(tmp_path):
  with pytest.raises(runs.ReportError) as error:
    runs.find_runs(tmp_path / "nowhere")
  assert str(error.value) == (
    f"No report for {str(tmp_path / 'nowhere')!r}. There is none; expected "
    "the folder of a training run (config.json, metrics.jsonl), or a folder "
    "of such folders. Train first: mmjax train --config=FILE "
    f"--workdir={tmp_path / 'nowhere'}"
  )


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(runs.ReportError, match="It is a file; expected the fold"):
    runs.find_runs(tmp_path / "file")


def test_a_folder_without_runs_is_an_error_with_what_is_there(tmp_path):
  with pytest.raises(runs.ReportError, match="found nothing. Give the"):
    runs.find_runs(tmp_path)
  (tmp_path / "pictures").mkdir()
  with pytest.raises(runs.ReportError) as error:
    runs.find_runs(tmp_path)
  assert str(error.value) == (
    f"No training run in {str(tmp_path)!r}. Expected config.json and "
    "metrics.jsonl in it or in its subfolders, found ['pictures']. Give the "
    "--workdir of `mmjax train`, or the folder above it."
  )
