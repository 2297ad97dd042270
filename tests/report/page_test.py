import base64
import io
import re

import pytest
from PIL import Image

from mmjax.report import page

HOSTILE = "<script>alert('x')</script> & \"more\""


@pytest.fixture
def write(read_page):
  """Writes the report of a folder; returns what a browser would find."""

  def written(folder):
    return read_page(page.write_report(folder).read_text())

  return written


@pytest.fixture
def everything(workdir, make_png):
  """A run with one artifact of each kind."""
  workdir.config().whole_log().metrics(40, test__top1=0.811, test__loss=0.5)
  results = [
    {"image": make_png("red"), "caption": c, "score": s, "right": c == "panda"}
    for c, s in (("cat", 0.91), ("panda", 0.82))
  ]
  rows = [
    {"query": "a panda", "truth": "panda", "results": results},
    {"query": make_png("blue"), "truth": "axe", "results": results[:1]},
  ]
  words = [
    {"token": " red", "hidden": False, "predicted": "", "right": False},
    {"token": " panda", "hidden": True, "predicted": " dog", "right": False},
    {"token": " face", "hidden": True, "predicted": " face", "right": True},
  ]
  pictures = [[make_png("red"), make_png("green")]]
  names = ["cats", "dogs"]
  for kind, data in {
    "pairs": {"columns": ["original", "rebuilt"], "images": pictures},
    "gallery": {"rows": rows},
    "masked_text": {"rows": [words]},
    "matrix": {
      "values": [[5, 1], [0, 7]],
      "row_names": names,
      "column_names": names,
    },
    "bars": {"names": [str(i) for i in range(512)], "values": [2] * 512},
    "table": {"columns": ["said"], "rows": [["a <b>panda"]]},
  }.items():
    workdir.artifact(40, "test", kind, kind, data)
  return workdir


def test_the_page_needs_nothing_but_itself(everything, write):
  path = page.write_report(everything.folder)
  text = path.read_text()
  found = write(everything.folder)
  assert path == everything.folder / "report.html"
  assert text.startswith("<!DOCTYPE html>")
  assert not re.search(r"https?:|//cdn|url\(|@import", text)
  assert not found.all("script") and not found.all("link")
  for image in found.all("img"):
    kind, content = image["src"].split(",", 1)
    assert kind == "data:image/png;base64"
    Image.open(io.BytesIO(base64.b64decode(content, validate=True))).load()
    assert image["alt"]
  assert len(found.all("img")) == 2 + 3 + 1


def test_links_lead_to_places_on_the_page(everything, write):
  found = write(everything.folder)
  places = {attrs["id"] for _, attrs in found.tags if "id" in attrs}
  targets = [attrs["href"] for attrs in found.all("a")]
  assert len(targets) == 1 + 4
  assert {target.removeprefix("#") for target in targets} <= places


def test_the_headline_says_what_ran_where(everything, write):
  text = write(everything.folder).text
  for part in (
    "2/3 pretraining finished",
    "steps 40 parameters 2.41 M trained 1.90 M batch size 64",
    "FLOPs per example 1.50 B device cpu x1 first to last log 1 min 20 s",
    "Start: loaded 31 of 143 parameters",
    "visual_tokenizer: 31 loaded",
  ):
    assert part in text


def test_results_are_a_table(everything, write):
  text = write(everything.folder).text
  assert "metric test step 40 loss 0.5 top1 81.1%" in text


def test_curves_have_their_chance_as_a_dashed_line(everything, write):
  found = write(everything.folder)
  assert len(found.all("path", "chance")) == 2
  assert "mlm loss 4 nats chance 8.5" in found.text
  assert "vtp loss 4 nats chance 6.2" in found.text
  assert "mlm accuracy 40.0%" in found.text
  labels = [svg["aria-label"] for svg in found.all("svg")]
  assert (
    "mlm loss: 7.9 at step 1, 4 at step 40; chance 8.5" in labels
    and "examples per second: 128 at step 1, 128 at step 40" in labels
  )


def test_right_and_wrong_are_told_without_colour(everything, write):
  found = write(everything.folder)
  assert len(found.all("li", "right")) == 1
  assert len(found.all("span", "tick")) == 1
  assert "✓ right at 2" in found.text
  assert "✗ not among these" in found.text
  assert "1 of 2 queries have a right result" in found.text
  assert "1 of 2 hidden words predicted" in found.text
  assert "red panda ✗ dog face ✓ face" in found.text
  assert len(found.all("span", "wrong")) == 2  # A query and a word.


def test_a_matrix_and_bars_are_drawn(everything, write):
  found = write(everything.folder)
  assert len(found.all("rect", "cell")) == 3
  assert "cats → dogs 1" in found.text
  assert len(found.all("path", "area")) == 1


def test_the_configuration_is_flat_and_folded(everything, write):
  found = write(everything.folder)
  for part in (
    "model.fusion {}",
    'model.encoders.image.name "vit"',
    'init.new ["a/.*", "b"]',
    "python 3.11.2",
  ):
    assert part in found.text
  assert all("open" not in attrs for attrs in found.all("details"))


def test_text_of_runs_is_never_markup(workdir, write, make_png):
  workdir.config(stage=HOSTILE, **{HOSTILE: HOSTILE})
  workdir.whole_log(
    stage=HOSTILE, device=HOSTILE, init=HOSTILE, versions={HOSTILE: HOSTILE}
  )
  workdir.metrics(40, **{f"{HOSTILE}__x": 1.0})
  workdir.artifact(
    40,
    "test",
    "pairs",
    "pairs",
    {"columns": [HOSTILE], "images": [[make_png("red")]]},
    caption=HOSTILE,
  )
  workdir.artifact(40, "test", "odd", HOSTILE, {}, caption=HOSTILE)
  found = write(workdir.folder)
  assert not found.all("script")
  assert found.text.count(HOSTILE) >= 8
  assert found.all("img")[0]["alt"] == HOSTILE


def test_several_runs_have_an_overview(make_workdir, write, tmp_path):
  for i, stage in enumerate(("1/2 tokenizer", "2/2 pretraining")):
    make_workdir(f"z{-i}").config().whole_log(stage=stage, time=float(i))
  found = write(tmp_path / "runs")
  assert "runs 1/2 tokenizer 2/2 pretraining run steps" in found.text
  sections = [attrs["id"] for attrs in found.all("section", "run")]
  assert sections == ["run-1", "run-2"]
  assert "mlm 4 chance 8.5" in found.text
  assert "Side by side" not in found.text


def test_what_several_runs_measured_stands_side_by_side(
  make_workdir, write, tmp_path
):
  for name, last in (("tuned", 0.9), ("scratch", 0.75)):
    measured = {"kind": "eval", "test/top1": 0.25}
    rows = [measured | {"step": 10}, measured | {"step": 20, "test/top1": last}]
    make_workdir(name).config().log(*rows)
  found = write(tmp_path / "runs")
  assert "Side by side test/top1" in found.text
  assert "scratch" in found.text and "tuned 90.0%" in found.text


def test_a_run_that_is_going_on_says_what_is_missing(
  workdir, write, make_start_row, make_train_row
):
  rows = make_start_row(), make_train_row(10)
  text = write(workdir.config().log(*rows, end='{"kin').folder).text
  assert "2/3 pretraining not finished" in text
  assert "steps 10 of 40" in text
  assert "The last line of metrics.jsonl is incomplete" in text
  assert "Not evaluated yet. Evaluators run at the end of training" in text


def test_a_run_that_logged_nothing_has_a_page(workdir, write):
  text = write(workdir.config().folder).text
  assert "metrics.jsonl is missing: nothing was logged yet." in text
  assert "No curves: no training step was logged yet." in text
  assert "Versions are not known" in text


def test_losses_that_are_not_finite_leave_a_page(
  workdir, write, make_start_row, make_train_row
):
  broken = {"mlm/loss": "nan", "vtp/loss": "inf"}
  rows = [make_start_row(), *(make_train_row(s) | broken for s in (10, 20))]
  found = write(workdir.config().log(*rows).folder)
  assert "No finite value was logged." in found.text
  assert "2 values are not finite and left out" in found.text


def test_artifacts_that_cannot_be_shown_are_told(workdir, write):
  workdir.config().whole_log().metrics(40, test__x=1.0)
  workdir.artifact(40, "test", "a", "hologram", {})
  workdir.artifact(40, "test", "b", "pairs", {"columns": []})
  (workdir.step(40) / "test.c.json").write_text("{")
  text = write(workdir.folder).text
  assert "Not shown: kind 'hologram' is unknown." in text
  assert "Not shown: the data does not fit kind 'pairs'" in text
  assert "evaluations/00000040/test.c.json could not be read" in text


def test_a_report_is_replaced_and_leaves_nothing_else(everything):
  (everything.folder / "report.html").write_text("old")
  before = {path.name for path in everything.folder.iterdir()}
  first = page.write_report(everything.folder).read_text()
  assert {path.name for path in everything.folder.iterdir()} == before
  assert page.write_report(everything.folder).read_text() == first


def test_a_report_that_cannot_be_written_is_an_error(everything):
  (everything.folder / "report.html").mkdir()
  with pytest.raises(page.ReportError, match="report.html' cannot be written"):
    page.write_report(everything.folder)
  assert not list(everything.folder.glob("*.tmp"))


def test_no_run_is_an_error(tmp_path):
  with pytest.raises(page.ReportError, match="No training run in"):
    page.write_report(tmp_path)


def test_evaluators_with_the_same_metrics_share_a_table(workdir, write):
  workdir.config().whole_log().metrics(20, b__top1=0.5, c__psnr=20.0)
  workdir.metrics(40, a__top1=0.25)
  found = write(workdir.folder)
  assert "metric a step 40 b step 20 top1 25.0% 50.0%" in found.text
  assert "metric c step 20 psnr 20 dB" in found.text
