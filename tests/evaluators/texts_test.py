import numpy as np

from mmjax.evaluators import texts


def test_ids_are_one_text_and_texts_of_the_source_may_be_several(letters):
  batch = {
    "ids": np.array([[5, 6, 0], [7, 0, 0]], np.int32),
    "tags": np.array(["a|b c", "d"], object),
  }
  assert texts.of_field(batch, "ids", letters) == [["ab"], ["c"]]
  assert texts.of_field(batch, "tags", letters) == [["a", "b c"], ["d"]]
  assert texts.one_of_field(batch, "tags", letters) == ["a|b c", "d"]
