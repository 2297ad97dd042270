def test_bad_input_is_refused_in_one_message(refused, tiny, tmp_path):
  config = tiny("finetune")

  assert "--config is missing" in refused("profile")
  assert "--steps=0, expected 1 or more" in refused(
    "profile", config, "--steps=0"
  )
  assert "expected a folder of this host" in refused(
    "profile", config, "--workdir=gs://bucket/run"
  )
  task = refused("profile", config, "--task=mian", f"--workdir={tmp_path}")
  assert "Did you mean 'main'" in task
  assert not list(tmp_path.iterdir())
