import pytest

from mmjax.cli import weights_average


def test_weights_alone_lists_what_may_follow(refused):
  message = refused("weights")

  for verb in ("lora", "merge", "average", "start"):
    assert repr(verb) in message


@pytest.mark.parametrize(
  ("verb", "flags"),
  [
    ("lora", ["--workdir={}/none", "--out={}/f"]),
    ("merge", ["--workdir={}/none", "--out={}/w"]),
    ("average", ["--workdirs={}/none,{}/other", "--out={}/w"]),
  ],
)
def test_a_folder_without_a_run_is_refused(refused, tmp_path, verb, flags):
  flags = [f.replace("{}", str(tmp_path)) for f in flags]

  assert "No run at" in refused("weights", verb, *flags)
  assert not list(tmp_path.iterdir())


def test_steps_that_do_not_pair_with_workdirs_are_refused(refused):
  message = refused(
    "weights", "average", "--workdirs=a,b", "--steps=1,2,3", "--out=w"
  )

  assert "3 --steps for 2 --workdirs" in message


@pytest.mark.parametrize(
  ("workdirs", "steps", "pairs"),
  [
    (["a"], ["1", "2"], [("a", "1"), ("a", "2")]),
    (["a", "b"], ["best"], [("a", "best"), ("b", "best")]),
    (["a", "b"], ["1", "2"], [("a", "1"), ("b", "2")]),
  ],
)
def test_workdirs_and_steps_are_paired(workdirs, steps, pairs):
  assert weights_average._pairs(workdirs, steps) == pairs


def test_a_lora_file_that_is_not_there_is_refused(refused, tiny, tmp_path):
  message = refused(
    "weights",
    "start",
    tiny("finetune"),
    f"--config.init.lora={tmp_path}/f",
    f"--out={tmp_path}/w",
  )

  assert "No LoRA file at" in message
  assert not list(tmp_path.iterdir())
