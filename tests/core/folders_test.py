from pathlib import Path

import fsspec
import pytest

from mmjax.core import errors, folders


@pytest.mark.parametrize(
  "address, expected",
  [
    ("runs/a", "runs/a"),
    (Path("/runs/a"), "/runs/a"),
    ("file:///runs/a%20b", "/runs/a b"),
    ("file://localhost/runs/a", "/runs/a"),
    ("~/a", "~/a"),
  ],
)
def test_local_folder_is_a_path(address, expected):
  assert folders.local(address) == Path(expected)
  assert not folders.is_url(address)


@pytest.mark.parametrize(
  "address", ["gs://bucket/run", "s3://bucket/run", "file://host/run"]
)
def test_other_url_is_refused_with_what_to_do(address):
  with pytest.raises(errors.UserError, match=f"{address}.*Mount it"):
    folders.local(address)


def test_remote_folder_has_a_file_system_and_a_path():
  system, root = folders.remote("memory://bucket/run/")

  assert system is fsspec.filesystem("memory")
  assert root == "/bucket/run"
  assert folders.is_url("memory://bucket/run/")


@pytest.mark.parametrize(
  "url, said",
  [
    ("gs://bucket/run", r"pip install 'mmjax\[cloud\]'"),
    ("s3://bucket/run", r"pip install 'mmjax\[cloud\]'"),
    ("hdfs://host/run", "Please install hdfs"),
  ],
)
def test_missing_package_is_named_with_its_extra(url, said, monkeypatch):
  def fail(url):
    raise ImportError("Please install hdfs")

  monkeypatch.setattr(fsspec.core, "url_to_fs", fail)

  with pytest.raises(errors.UserError, match=f"{url}.*not installed: {said}"):
    folders.remote(url)


@pytest.mark.parametrize(
  "url, text",
  [
    ("nonsense://bucket/run", "Nothing opens.*nonsense"),
    ("memory://", "names no folder"),
  ],
)
def test_url_that_leads_nowhere_is_refused(url, text):
  with pytest.raises(errors.UserError, match=text):
    folders.remote(url)


def test_file_at_a_url_is_copied_once():
  fsspec.filesystem("memory").pipe_file("/box/tokenizer.json", b"{}")

  path = folders.file("memory://box/tokenizer.json")

  assert path.name == "tokenizer.json" and path.read_text() == "{}"
  assert folders.file("memory://box/tokenizer.json") == path
  assert folders.file("~/a.json") == Path("~/a.json").expanduser()


def test_file_that_is_not_at_the_url_is_refused():
  with pytest.raises(errors.UserError, match="memory://box/no.*cannot be read"):
    folders.file("memory://box/no.json")
