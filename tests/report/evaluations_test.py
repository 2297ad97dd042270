from mmjax.report import evaluations


def test_each_evaluator_has_its_newest_results(workdir):
  workdir.metrics(10, a__x=1.0, b__x=2.0).metrics(20, a__x=3.0)
  results, _, notes = evaluations.read(workdir.folder)
  found = {r.evaluator: (r.step, dict(r.metrics)) for r in results}
  assert found == {"a": (20, {"x": 3.0}), "b": (10, {"x": 2.0})}
  assert notes == ()


def test_a_metric_keeps_all_of_its_name(workdir):
  workdir.metrics(10, masked__codes__accuracy=0.5, alone=1.0)
  results, _, _ = evaluations.read(workdir.folder)
  assert [(r.evaluator, dict(r.metrics)) for r in results] == [
    ("alone", {"alone": 1.0}),
    ("masked", {"codes/accuracy": 0.5}),
  ]


def test_metrics_are_in_the_order_of_their_numbers(workdir):
  values = {"a__R@1": 0.1, "a__R@10": 0.3, "a__R@5": 0.2, "a__loss": 1.0}
  (result,), _, _ = evaluations.read(workdir.metrics(10, **values).folder)
  assert list(result.metrics) == ["R@1", "R@5", "R@10", "loss"]


def test_each_evaluator_has_its_newest_artifacts(workdir):
  for step, name in ((10, "old"), (20, "new"), (20, "other")):
    workdir.artifact(step, "a", name, "bars", {})
  workdir.artifact(10, "b", "old", "bars", {})
  _, artifacts, _ = evaluations.read(workdir.folder)
  found = [(a.evaluator, a.name, a.step) for a in artifacts]
  assert found == [("a", "new", 20), ("a", "other", 20), ("b", "old", 10)]


def test_damaged_files_are_notes(workdir):
  workdir.metrics(10, a__x=1.0)
  (workdir.step(20) / "metrics.json").write_text('{"a/x": 1')
  (workdir.step(20) / "a.pairs.json").write_text("[]")
  results, artifacts, notes = evaluations.read(workdir.folder)
  assert [r.step for r in results] == [10]
  assert artifacts == ()
  assert notes[0].startswith(
    "evaluations/00000020/metrics.json could not be read ("
  )
  assert notes[1] == (
    "evaluations/00000020/a.pairs.json is no JSON object; it is left out."
  )


def test_other_folders_are_no_steps(workdir):
  (workdir.folder / "evaluations" / "tmp").mkdir(parents=True)
  assert evaluations.read(workdir.folder) == ((), (), ())
