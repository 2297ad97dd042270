import math

from mmjax.report import heatmap

NAMES = ["animals", "flags", "food"]


def test_cells_are_shaded_by_their_share_of_the_row():
  values = [[8.0, 2.0, 0.0], [0.0, 5.0, 0.0], [1.0, 1.0, 2.0]]
  made = heatmap.layout(values, NAMES, NAMES)
  shades = {cell.title: cell.shade for cell in made.cells}
  assert shades == {
    "animals → animals: 8": 0.8,
    "animals → flags: 2": 0.2,
    "flags → flags: 5": 1.0,
    "food → animals: 1": 0.25,
    "food → flags: 1": 0.25,
    "food → food: 2": 0.5,
  }
  assert len(made.diagonal) == 3
  assert made.shade == "share of the row"


def test_negative_values_are_shaded_from_lowest_to_highest():
  made = heatmap.layout([[-1.0, 3.0], [1.0, math.nan]], ["a", "b"], ["c", "d"])
  assert [cell.shade for cell in made.cells] == [0.0, 1.0, 0.5]
  assert made.diagonal == ()
  assert made.shade == "from lowest to highest"


def test_names_have_room_beside_the_cells():
  long = "a name that is much longer than all of the others here"
  made = heatmap.layout([[1.0]], [long], ["column"])
  (name,) = made.rows
  assert (len(name.text), name.title) == (heatmap.MAX_NAME, long)
  assert made.left >= heatmap.MAX_NAME * heatmap.LETTER


def test_a_large_matrix_has_readable_names_and_no_numbers():
  names = [f"class {i}" for i in range(97)]
  values = [[float(i == j) for j in range(97)] for i in range(97)]
  made = heatmap.layout(values, names, names)
  assert made.cell >= 9
  assert len(made.rows) == len(made.columns) == len(made.cells) == 97
  assert all(cell.text == "" for cell in made.cells)
  assert made.angle == -90


def test_more_than_a_hundred_rows_are_cut():
  names = [str(i) for i in range(120)]
  made = heatmap.layout([[1.0] * 120] * 120, names, names)
  assert len(made.rows) == len(made.columns) == 100


def test_the_most_confused_pairs_come_first():
  values = [[9.0, 2.0, 0.0], [3.0, 9.0, 0.0], [0.0, 2.0, 9.0]]
  assert heatmap.most_confused(values, NAMES, count=2) == [
    ("flags", "animals", "3"),
    ("animals", "flags", "2"),
  ]
