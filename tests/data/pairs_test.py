import pytest

from mmjax.core import errors
from mmjax.data.pairs import Paired


class Letters:
  """Pictures named by letter and number, in no order."""

  class_names = {"letter": ("a", "b")}
  splits = {"train": 5}
  names = ("a0", "b0", "a1", "c0", "a2")

  def __len__(self):
    return len(self.names)

  def __getitem__(self, index):
    name = self.names[index.__index__()]
    return {"letter": name[0], "image": name.encode()}


def test_the_partner_is_the_next_with_the_same_text_around_the_end():
  got = [
    e["image_other"]
    for e in map(Paired(Letters(), "letter").__getitem__, range(5))
  ]
  assert got == [b"a1", b"b0", b"a2", b"c0", b"a0"]


def test_everything_else_is_the_sources():
  paired = Paired(Letters(), "letter")
  assert len(paired) == 5
  assert paired[2]["image"] == b"a1" and paired[2]["letter"] == "a"
  assert (paired.class_names, paired.splits) == (
    Letters.class_names,
    Letters.splits,
  )


class Damaged(Letters):
  """The third record cannot be read."""

  def __getitem__(self, index):
    if index == 2:
      raise OSError("damaged")
    return super().__getitem__(index)


def test_a_broken_example_is_nobodys_partner():
  paired = Paired(Damaged(), "letter")
  assert paired[0]["image_other"] == b"a2"
  assert paired[4]["image_other"] == b"a0"
  with pytest.raises(OSError, match="damaged"):
    paired[2]


@pytest.mark.parametrize(
  ("fields", "near"),
  [(("leter",), "letter"), (("letter", "imago"), "image")],
)
def test_fields_that_the_source_lacks_are_refused(fields, near):
  with pytest.raises(errors.UserError, match=f"Did you mean '{near}'"):
    Paired(Letters(), *fields)[0]
