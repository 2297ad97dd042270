from mmjax.build import datasets


def test_check_counts_the_examples_of_a_split():
  result, text = datasets.check("synthetic", "test")

  assert result.checked == {"test": 128}
  assert "128" in text
