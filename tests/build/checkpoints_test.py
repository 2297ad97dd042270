import pytest

from mmjax.build import checkpoints
from mmjax.core import errors


@pytest.mark.parametrize(
  ("text", "expected"), [("latest", "latest"), ("best", "best"), ("12", 12)]
)
def test_step_is_a_word_or_a_number(text, expected):
  assert checkpoints.which(text) == expected


@pytest.mark.parametrize("text", ["newest", "-1", "1.5", ""])
def test_other_steps_are_refused(text):
  with pytest.raises(
    errors.UserError, match=f"step='{text}', expected latest, best or a number"
  ):
    checkpoints.which(text)


@pytest.mark.parametrize("made", [(), ("config.json",), ("checkpoints",)])
def test_folder_without_a_run_is_refused(tmp_path, made):
  for name in made:
    if name == "checkpoints":
      (tmp_path / name).mkdir()
    else:
      (tmp_path / name).write_text("{}")

  with pytest.raises(
    errors.UserError, match="No run in.*config.json and check"
  ):
    checkpoints.open_checkpoints(tmp_path)
