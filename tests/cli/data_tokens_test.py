"""What the flags of `mmjax data tokens` mean; the work is `cached_codes`."""

from types import SimpleNamespace

import pytest

from mmjax.build import cached_codes


@pytest.fixture
def calls(monkeypatch):
  """Records who makes codes of what, in place of doing it."""
  made = []

  def write(split, out, on_progress):
    on_progress(3, 3)
    made.append((split, out))
    return f"{out}/{split}"

  coder = SimpleNamespace(modality="image", tokenizer="abc", write=write)

  def of(kind):
    def make(*args):
      made.append((kind, *args))
      return coder

    return make

  monkeypatch.setattr(cached_codes, "of_run", of("run"))
  monkeypatch.setattr(cached_codes, "of_config", of("config"))
  return made


def test_every_split_is_written_with_the_tokenizer_that_a_config_starts_from(
  mmjax, tiny, calls, tmp_path
):
  out = tmp_path / "codes"
  result = mmjax(
    "data",
    "tokens",
    tiny("pretrain"),
    "--config.data.image.crop_scale=(1.0, 1.0)",
    "--split=train,test",
    f"--out={out}",
  )
  assert result.status == 0, result
  (kind, config, modality), *splits = calls
  assert (kind, modality) == ("config", "") and config.data.codes is None
  assert tuple(config.data.image.crop_scale) == (1.0, 1.0)
  assert splits == [("train", str(out)), ("test", str(out))]
  assert f"{out}/test: codes of 'image', tokenizer abc" in result.out


def test_another_source_is_seen_whole(mmjax, tiny, calls, tmp_path):
  argv = ("data", "tokens", tiny("tokenizer"), "--source=starter_emoji")
  assert mmjax(*argv, f"--out={tmp_path}").status == 0
  _, config, _ = calls[0]
  assert config.data.source == "starter_emoji"
  assert tuple(config.data.image.crop_scale) == (1.0, 1.0)
  assert calls[1][0] == "train"  # The config's split.


def test_what_is_missing_is_said(refused, tiny, tmp_path):
  argv = ("data", "tokens")
  assert "--out is missing" in refused(*argv, tiny("tokenizer"))
  assert "--tokenizer=WORKDIR, --config=FILE" in refused(
    *argv, f"--out={tmp_path}"
  )
  assert "No run at" in refused(
    *argv, f"--tokenizer={tmp_path}", f"--out={tmp_path}"
  )
