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
