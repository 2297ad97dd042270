from pathlib import Path

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


@pytest.mark.parametrize(
  "address", ["gs://bucket/run", "s3://bucket/run", "file://host/run"]
)
def test_other_url_is_refused_with_what_to_do(address):
  with pytest.raises(errors.UserError, match=f"{address}.*Mount it"):
    folders.local(address)
