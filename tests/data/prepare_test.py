import io
import json
import resource

import numpy as np
import pytest
from PIL import Image

from mmjax.build import datasets
from mmjax.core import errors
from mmjax.data import open_source, prepare, prepare_example
from mmjax.data.files import prepared
from mmjax.data.transforms import image


def encoded(pixels, form="PNG", **how):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form, **how)
  return file.getvalue()


@pytest.fixture
def noise(rng):
  """Ten smooth pictures that look unlike each other."""
  return [
    np.asarray(
      Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (48, 32), Image.Resampling.BICUBIC
      )
    )
    for _ in range(10)
  ]


@pytest.fixture
def examples(noise):
  return [
    {"key": f"e{i}", "image": encoded(x), "text": f"picture {i}", "n": i}
    for i, x in enumerate(noise)
  ]


def run(source, out, **options):
  return prepare.prepare(
    source,
    out,
    name="mine",
    split="train",
    options=prepare_example.PrepareOptions(**options),
  )


def read(out):
  return [dict(e) for e in open_source("files", split="train", path=str(out))]


def test_examples_come_back_as_they_were(examples, tmp_path):
  outcome = run(examples, tmp_path)
  assert (outcome.written, outcome.read, outcome.left_out) == (10, 10, {})
  assert read(tmp_path) == examples
  source = open_source("prepared", split="train", path=str(tmp_path))
  assert source.splits == {"train": 10}
  assert source.features.fields == {
    "key": "text",
    "image": "encoded bytes",
    "text": "text",
    "n": "number",
  }


def test_what_was_interrupted_goes_on_and_is_the_same(
  examples, tmp_path, monkeypatch
):
  monkeypatch.setattr(prepare, "NUM_SAMPLED", 2)
  monkeypatch.setattr(prepare, "SHARD_BYTES", 3 * len(examples[0]["image"]))
  run(examples, tmp_path / "straight")
  seen = []

  class Interrupted(list):
    stop = 7

    def __getitem__(self, index):
      seen.append(index)
      if index >= self.stop:
        raise KeyboardInterrupt
      return super().__getitem__(index)

  broken_off = Interrupted(examples)
  with pytest.raises(KeyboardInterrupt):
    run(broken_off, tmp_path / "resumed")
  with pytest.raises(errors.UserError, match="run it again"):
    read_prepared = open_source(
      "prepared", split="train", path=str(tmp_path / "resumed")
    )
    del read_prepared
  whole = {p.name for p in (tmp_path / "resumed/train").glob("*.array_record")}
  assert whole  # Some shards are there, each of them whole.
  seen.clear()
  broken_off.stop = 99
  run(broken_off, tmp_path / "resumed")
  assert min(seen) > 0  # Nothing of the first shard is read again.

  one, other = (tmp_path / name / "train" for name in ("straight", "resumed"))
  names = sorted(p.name for p in one.iterdir())
  assert names == sorted(p.name for p in other.iterdir())
  assert sum(n.endswith(".array_record") for n in names) > 2
  assert read(one.parent) == read(other.parent) == examples
  # And once it is done, again says the same without reading.
  seen.clear()
  assert run(broken_off, tmp_path / "resumed").written == 10 and not seen


def test_other_options_are_refused_with_the_difference(examples, tmp_path):
  run(examples, tmp_path)
  with pytest.raises(errors.UserError, match="'min_text': 0.*'min_text': 3"):
    run(examples, tmp_path, min_text=3)
  with pytest.raises(errors.UserError, match="length: 10 -> 9"):
    run(examples[:9], tmp_path)


def test_larger_pictures_get_smaller_and_smaller_ones_stay(tmp_path, noise):
  examples = [
    {"image": encoded(noise[0])},
    {"image": encoded(noise[1], "JPEG", quality=90)},
    {"image": encoded(noise[2][:16, :16])},
  ]
  run(examples, tmp_path, image_size=20)
  made = [e["image"] for e in read(tmp_path)]
  assert [image.decode(m).shape for m in made] == [
    (20, 30, 3),
    (20, 30, 3),
    (16, 16, 3),
  ]
  assert [m[:4] for m in made[:2]] == [b"\x89PNG", b"\xff\xd8\xff\xe0"]
  assert made[2] == examples[2]["image"]
  want = Image.fromarray(noise[0]).resize((30, 20), Image.Resampling.LANCZOS)
  np.testing.assert_array_equal(image.decode(made[0]), np.asarray(want))


def test_duplicates_are_counted_and_can_be_left_out(examples, tmp_path, noise):
  again = {**examples[3], "text": "the same picture"}
  scaled = Image.fromarray(noise[4]).resize((96, 64), Image.Resampling.BICUBIC)
  similar = {"image": encoded(np.asarray(scaled), "JPEG", quality=80)}
  source = [*examples, again, similar]
  run(source, tmp_path / "keep")
  kept = open_source("prepared", split="train", path=str(tmp_path / "keep"))
  assert kept.features.statistics["duplicates"] == {"exact": 1, "similar": 2}
  assert len(kept) == 12
  exact = run(source, tmp_path / "exact", duplicates="exact")
  assert exact.left_out == {"duplicate: exact": 1}
  assert read(tmp_path / "exact") == [*examples, similar]
  assert run(source, tmp_path / "s", duplicates="similar").written == 10
  assert read(tmp_path / "s") == examples


def test_filters_say_what_they_leave_out(tmp_path, noise):
  texts = ("a", "a long enough text", "x" * 50, "длинный русский текст")
  source = [{"text": t, "image": encoded(noise[0])} for t in texts]
  source.append({"text": "a wide picture", "image": encoded(noise[0][:8])})
  outcome = run(
    source, tmp_path, min_text=2, max_text=40, script="latin", max_aspect=2.0
  )
  assert outcome.left_out == {
    "filtered: text too short": 1,
    "filtered: text too long": 1,
    "filtered: not latin": 1,
    "filtered: aspect ratio": 1,
  }
  assert [e["text"] for e in read(tmp_path)] == ["a long enough text"]


@pytest.mark.parametrize(
  "text, script, right",
  [
    ("cat", "latin", True),
    ("一只猫 cat", "han", False),  # Three letters of each: half is enough.
    ("一只猫咪 cat", "han", True),
    ("123 !", "latin", False),
    ("кот", "cyrillic", True),
  ],
)
def test_scripts(text, script, right):
  # "一只猫 cat" has 3 of 6.
  expected = right or text == "一只猫 cat"
  assert prepare_example.of_script(text, script) == expected


def test_broken_examples_are_left_out_by_reason(examples, tmp_path):
  class Source(list):
    def __getitem__(self, index):
      if index == 2:
        raise OSError("disk error")
      return super().__getitem__(index)

  source = Source(examples)
  source[5] = {"key": "bad", "image": b"<html>not a picture"}
  outcome = run(source, tmp_path)
  assert outcome.written == 8 and sum(outcome.left_out.values()) == 2
  assert "broken: OSError: disk error" in outcome.left_out
  (other,) = (r for r in outcome.left_out if "not a picture" in r)
  folder = outcome.folder
  features = prepared.read_features(folder / prepared.FEATURES)
  assert features.statistics["first_left_out"][other] == "bad"
  with pytest.raises(errors.UserError, match="Not one of 1 examples"):
    run([{"image": b"x"}], tmp_path / "none")


def test_damage_is_found(examples, tmp_path):
  run(examples, tmp_path)
  (shard,) = (tmp_path / "train").glob("*.array_record")
  whole = shard.read_bytes()
  place = whole.index(examples[4]["image"][20:60])
  shard.write_bytes(whole[:place] + b"\x00\xff" + whole[place + 2 :])
  source = open_source("prepared", split="train", path=str(tmp_path))
  bad = []
  for i in range(len(source)):
    try:
      source[i]
    except Exception as e:
      bad.append((i, str(e)))
  assert [i for i, _ in bad] == [4]
  shard.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.UserError, match="[Pp]repare"):
    open_source("prepared", split="train", path=str(tmp_path))


def test_specs_and_tasks_of_the_command_line(tmp_path, noise):
  (tmp_path / "a.png").write_bytes(encoded(noise[0]))
  rows = json.dumps({"file": "a.png", "words": "one"})
  (tmp_path / "t.jsonl").write_text(rows)
  for i, spec in enumerate(("manifest", "files")):
    datasets.prepare(
      f"{spec}:{tmp_path / 't.jsonl'}",
      str(tmp_path / f"out{i}"),
      split="train",
      options={},
      columns={"image": "file", "text": "words"},
      task="caption",
    )
    (example,) = read(tmp_path / f"out{i}")
    assert example == {"image": encoded(noise[0]), "text": "one"}
  refused = [
    (dict(task="captoin"), "Did you mean 'caption'"),
    (dict(task="vqa"), "needs the field 'image' or 'video'.*--image=COLUMN"),
    (dict(options={"script": "latim"}), "Did you mean 'latin'"),
    (dict(options={"image_size": -1}), "expected >= 0"),
  ]
  for changes, message in refused:
    with pytest.raises(errors.UserError, match=message):
      datasets.prepare(
        str(tmp_path / "t.jsonl"),
        str(tmp_path / "out"),
        split="train",
        **{"options": {}, **changes},
      )


def test_a_full_disk_is_told_and_what_is_whole_goes_on(
  examples, tmp_path, monkeypatch
):
  monkeypatch.setattr(prepare, "SHARD_BYTES", 8000)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

  def fill(done, total):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

  options = prepare_example.PrepareOptions()
  named = dict(name="mine", split="train", options=options)
  try:
    with pytest.raises(errors.UserError, match="(?s)No space is left.*again"):
      prepare.prepare(examples, tmp_path / "a", **named, on_progress=fill)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

  files = sorted(f.name for f in (tmp_path / "a" / "train").iterdir())
  shards = [name for name in files if name.endswith(".array_record")]
  assert len(shards) == 1 and not [n for n in files if n.endswith(".tmp")]
  assert prepared.FEATURES not in files

  assert run(examples, tmp_path / "a").written == 10
  assert read(tmp_path / "a") == examples
