import pytest

from mmjax.report import results, runs


def test_results_are_aligned_and_grouped_by_evaluator():
  values = {
    "unseen_artist/image_to_text/R@1": 0.123,
    "unseen_artist/median_rank": 88.5,
    "masked/tokens/accuracy": 0.31,
  }
  assert results.format_results(values, title="runs/x, step 500") == (
    "runs/x, step 500\n"
    "  unseen_artist   image_to_text/R@1   12.3%\n"
    "                  median_rank          88.5\n"
    "  masked          tokens/accuracy     31.0%"
  )


def test_no_results_are_said():
  assert results.format_results({}, title="runs/x") == "runs/x\n  no results"


def test_names_without_evaluator_stand_at_the_left():
  assert results.format_results({"loss": 0.5}, title="") == "  loss   0.5"


def test_the_table_has_a_section_per_run(make_workdir, tmp_path):
  first = make_workdir("z").config().whole_log(stage="1/2", time=1.0)
  first.metrics(40, a__psnr=20.0)
  second = make_workdir("b").config().whole_log(stage="2/2", num_steps=1000)
  assert results.results_table(tmp_path / "runs") == (
    "1/2, evaluated at step 40\n"
    "  a   psnr   20 dB\n"
    "\n"
    "2/2, step 40 of 1,000\n"
    f"  not evaluated yet: mmjax evaluate --workdir={second.folder}"
  )


def test_a_run_that_logged_nothing_is_in_the_table(workdir):
  workdir.config(stage="mine")
  assert results.results_table(workdir.folder).startswith("mine, step 0 of ?\n")


def test_a_table_of_nothing_is_an_error(tmp_path):
  with pytest.raises(runs.ReportError, match="No training run in"):
    results.results_table(tmp_path)
