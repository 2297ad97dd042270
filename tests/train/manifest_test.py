import hashlib
import json

import pytest

from mmjax.core import errors
from mmjax.train import manifest


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "state" / "d").mkdir(parents=True)
  (tmp_path / "state" / "d" / "0").write_bytes(b"\x00\x01\x02\x03")
  (tmp_path / "meta").write_text("{}")
  manifest.write(tmp_path)
  return tmp_path


def test_manifest_lists_size_and_sha256_of_all_files(folder):
  files = json.loads((folder / "manifest.json").read_text())["files"]

  assert files == {
    "meta": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
    "state/d/0": {
      "size": 4,
      "sha256": hashlib.sha256(b"\x00\x01\x02\x03").hexdigest(),
    },
  }


def test_untouched_folder_has_no_problems(folder):
  assert manifest.verify(folder) == []


def test_flipped_byte_is_found(folder):
  (folder / "state" / "d" / "0").write_bytes(b"\x00\x01\x02\x07")

  assert manifest.verify(folder) == ["state/d/0: content differs (SHA-256)"]


def test_truncated_file_is_found(folder):
  (folder / "state" / "d" / "0").write_bytes(b"\x00")

  assert manifest.verify(folder) == ["state/d/0: 1 bytes, expected 4"]


def test_missing_file_is_found(folder):
  (folder / "meta").unlink()

  assert manifest.verify(folder) == ["meta: missing"]


def test_a_part_is_not_good_alone(folder):
  manifest.write(folder, "2 of 3")

  (problem,) = manifest.verify(folder)
  assert problem == "manifest.json: only part 2 of 3 of the step"
  assert manifest.verify(folder, under="state/") == []
  whole = manifest.merged([(folder / manifest.FILE).read_text()])
  (folder / manifest.FILE).write_text(whole)
  assert manifest.verify(folder) == []


def test_damage_elsewhere_is_not_looked_for(folder):
  (folder / "meta").unlink()

  assert manifest.verify(folder, under="state/") == []


def test_files_that_the_manifest_does_not_name_are_no_problem(folder):
  (folder / "notes.txt").write_text("mine")

  assert manifest.verify(folder) == []


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": 1}}'])
def test_unreadable_manifest_is_a_problem(folder, text):
  (folder / "manifest.json").write_text(text)

  (problem,) = manifest.verify(folder)
  assert problem.startswith("manifest.json: not readable")


def test_writing_again_does_not_list_the_manifest_itself(folder):
  before = (folder / "manifest.json").read_text()

  manifest.write(folder)

  assert (folder / "manifest.json").read_text() == before
  assert not list(folder.glob("*.tmp"))


def test_verifying_without_a_manifest_is_an_error(tmp_path):
  with pytest.raises(errors.UserError, match="has no manifest.json"):
    manifest.verify(tmp_path)
