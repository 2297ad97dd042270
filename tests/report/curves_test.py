import pytest

from mmjax.report import curves, runs


@pytest.fixture
def run(workdir, make_start_row, make_train_row):
  evaluation = {"kind": "eval", "time": 1.0, "test/mlm/loss": 7.5}
  workdir.config().log(
    make_start_row(),
    make_train_row(10),
    evaluation | {"step": 10, "test/psnr": 20.0, "test/R@1": 0.1},
    make_train_row(20),
    evaluation | {"step": 20, "test/psnr": 21.0},
  )
  return runs.read_run(workdir.folder)


def test_each_objective_has_a_loss_with_its_chance(run):
  found = {c.title: (c.chance, c.unit) for c in curves.loss_curves(run)}
  assert found == {"mlm loss": (8.5, "nats"), "vtp loss": (6.2, "nats")}


def test_held_out_losses_stand_beside_the_trained_ones(run):
  mlm, vtp = curves.loss_curves(run)
  assert [series.name for series in mlm.series] == ["training", "test"]
  assert mlm.series[1].points == ((10, 7.5), (20, 7.5))
  assert [series.name for series in vtp.series] == ["training"]


def test_a_loss_without_chance_has_no_unit(workdir, make_start_row):
  row = {"kind": "train", "step": 1, "tokenizer/loss": 0.5}
  workdir.log(make_start_row(chance={"tokenizer": None}), row)
  (curve,) = curves.loss_curves(runs.read_run(workdir.folder))
  assert (curve.chance, curve.unit) == (None, "")


def test_accuracies_are_shares(run):
  (curve,) = curves.accuracy_curves(run)
  assert (curve.title, curve.percent) == ("mlm accuracy", True)


def test_speed_is_throughput_waiting_and_utilisation(run):
  assert [(c.title, c.percent) for c in curves.speed_curves(run)] == [
    ("examples per second", False),
    ("waiting for data", True),
    ("model FLOPs utilisation", True),
  ]


def test_the_rest_of_the_log_is_shown_once(run):
  # R@1 has one point only, test/mlm/loss stands beside the loss.
  titles = [curve.title for curve in curves.other_curves(run)]
  assert titles == ["grad_norm", "test/psnr"]


def test_cosines_stand_together_for_each_objective(
  workdir, make_start_row, make_train_row
):
  measured = {
    "grad_cosine/mlm/vtp": 0.5,
    "grad_cosine/mlm/itc": -0.25,
    "grad_cosine/itc/vtp": 0.0,
  }
  workdir.config().log(
    make_start_row(), make_train_row(10, **measured), make_train_row(20)
  )
  run = runs.read_run(workdir.folder)
  found = {
    curve.title.split(":")[0]: {s.name: s.points for s in curve.series}
    for curve in curves.conflict_curves(run)
  }
  assert found == {
    "itc": {"mlm": ((10, -0.25),), "vtp": ((10, 0.0),)},
    "mlm": {"vtp": ((10, 0.5),), "itc": ((10, -0.25),)},
    "vtp": {"mlm": ((10, 0.5),), "itc": ((10, 0.0),)},
  }
  assert [c.title for c in curves.other_curves(run)] == ["grad_norm"]


def test_what_several_runs_measured_is_one_curve(make_workdir):
  logs = {
    "pretrained": {10: (0.5, 2.0), 20: (0.9, 2.0)},
    "scratch": {10: (0.25, 2.0), 20: (0.75, 2.0)},
    "short": {20: (0.1, 1.0)},  # One point is no line.
  }
  found = []
  for name, log in logs.items():
    rows = [
      {"kind": "eval", "step": s, "test/top1": a, "test/majority": b}
      for s, (a, b) in log.items()
    ]
    folder = make_workdir(name).log(*rows).folder
    found.append(runs.read_run(folder))
  # The majority never changes.
  (curve,) = curves.shared_curves(found)
  assert (curve.title, curve.percent) == ("test/top1", True)
  assert {s.name: s.points for s in curve.series} == {
    "pretrained": ((10, 0.5), (20, 0.9)),
    "scratch": ((10, 0.25), (20, 0.75)),
  }
  assert curves.shared_curves(found[:1]) == []
