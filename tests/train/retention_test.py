from mmjax.train import manifest, retention


def _make(directory, *steps, listed=True):
  for step in steps:
    (directory / str(step)).mkdir()
    (directory / str(step) / "data").write_text(str(step))
    if listed:
      manifest.write(directory / str(step))


def _none(steps):
  del steps
  return []


def test_only_folders_named_by_a_number_are_steps(tmp_path):
  _make(tmp_path, 10, 9, "damaged-11", "12.orbax-checkpoint-tmp")
  (tmp_path / "13").write_text("a file")

  assert retention.saved_steps(tmp_path) == [9, 10]


def test_a_directory_that_is_not_there_has_no_steps(tmp_path):
  assert retention.saved_steps(tmp_path / "none") == []


def test_rank_puts_the_best_first_and_the_newer_of_equals():
  values = {1: 0.5, 2: 0.9, 3: None, 4: 0.9, 5: 0.1}

  assert retention.rank(values, values.get, "max") == [4, 2, 1, 5]
  assert retention.rank(values, values.get, "min") == [5, 1, 4, 2]


def test_newest_and_best_stay(tmp_path):
  _make(tmp_path, 1, 2, 3, 4, 5)

  retention.delete_old(
    tmp_path, newest=5, keep=2, best=lambda steps: [2, *steps]
  )

  assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4", "5"]


def test_steps_without_a_manifest_do_not_displace_whole_ones(tmp_path):
  _make(tmp_path, 1, 2)
  _make(tmp_path, 3, listed=False)
  _make(tmp_path, 4)

  retention.delete_old(tmp_path, newest=4, keep=2, best=_none)

  assert retention.saved_steps(tmp_path) == [2, 4]


def test_what_an_interrupted_deletion_left_is_deleted(tmp_path):
  _make(tmp_path, 1, "deleted-0")

  retention.delete_old(tmp_path, newest=1, keep=1, best=_none)

  assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_damaged_steps_are_renamed_and_kept(tmp_path):
  _make(tmp_path, 1, 2)

  retention.set_aside(tmp_path, [2, 3])

  assert retention.saved_steps(tmp_path) == [1]
  assert (tmp_path / "damaged-2" / "data").read_text() == "2"
