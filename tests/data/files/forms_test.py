"""What is particular to each form, and what is wrong with one."""

import json
import tarfile

import pytest

from mmjax.core import errors
from mmjax.data.files import arrow, folder, lines, manifest, media, storage, tar


def test_names_split_at_the_first_dot_of_the_last_part():
  assert media.split_name("a.b/c.seg.PNG") == ("a.b/c", "seg.png")
  assert media.split_name("c") == ("c", "")


def test_endings_make_fields():
  fields = media.fields_of
  assert fields("jpeg", b"x") == {"image": b"x"}
  assert fields("seg.png", b"x") == {"seg": b"x"}
  assert fields("opus", b"x") == {"audio": b"x"}
  assert fields("txt", " a\n".encode()) == {"text": "a"}
  assert fields("txt", "a\n\nb".encode()) == {"text": ("a", "b")}
  assert fields("cls", b"7\n") == {"label": 7}
  assert fields("cls", b"cat") == {"label": "cat"}
  assert fields("json", b'{"a": [1, [2]], "b": null}') == {
    "a": (1, (2,)),
    "b": None,
  }
  assert fields("xyz", b"x") == {}


@pytest.mark.parametrize(
  "ending, content, message",
  [
    ("txt", b"\xff\xfe", "not UTF-8"),
    ("json", b"{", "not JSON"),
    ("json", b"[1]", "without an object"),
  ],
)
def test_a_file_that_is_not_what_it_says_is_one_bad_example(
  ending, content, message
):
  with pytest.raises(ValueError, match=message) as e:
    media.fields_of(ending, content)
  assert not isinstance(e.value, errors.UserError)


def test_subfolders_are_classes_and_keys(written):
  source = folder.FolderSource(split="train", path=str(written("folder")))
  assert source.class_names == {"folder": ("cat", "dog")}
  assert [source[i]["key"] for i in range(5)] == [
    "cat/001",
    "cat/003",
    "dog/000",
    "dog/002",
    "dog/004",
  ]
  assert source[2]["folder"] == "dog"


def test_a_folder_without_splits_is_train_and_texts_alone_are_examples(
  tmp_path,
):
  for i in range(3):
    (tmp_path / f"{i}.txt").write_text(f"text {i}")
  source = folder.FolderSource(split="train", path=str(tmp_path))
  assert [source[i] for i in range(3)] == [
    {"key": str(i), "text": f"text {i}"} for i in range(3)
  ]
  with pytest.raises(errors.UserError, match="no folder 'test'"):
    folder.FolderSource(split="test", path=str(tmp_path))
  (tmp_path / "0.jpg").write_bytes(b"x")  # Now texts are sidecars.
  (source,) = folder.FolderSource(split="train", path=str(tmp_path))
  assert source["key"] == "0"


def test_two_files_for_one_field_are_refused_with_both(tmp_path):
  (tmp_path / "a.jpg").write_bytes(b"x")
  (tmp_path / "a.png").write_bytes(b"x")
  with pytest.raises(errors.UserError, match=r"a\.jpg.*a\.png.*'image'"):
    folder.FolderSource(split="train", path=str(tmp_path))


def test_columns_of_other_names_are_mapped(written, tmp_path):
  root = written("csv")
  rows = "file,caption,extra\nimg/1.png,one,x\n"
  (tmp_path / "t.csv").write_text(rows.replace("img", str(root / "img")))
  columns = {"image": "file", "text": "caption"}
  source = manifest.ManifestSource(
    split="train", path=str(tmp_path / "t.csv"), columns=columns
  )
  example = source[0]
  assert set(example) == {"image", "text", "extra"}
  assert example["image"] == (root / "img" / "1.png").read_bytes()
  with pytest.raises(errors.UserError, match=r"columns\.text.*'caption'"):
    manifest.ManifestSource(
      split="train",
      path=str(tmp_path / "t.csv"),
      columns={"text": "captoin"},
    )


def test_a_missing_file_is_one_bad_example(tmp_path):
  rows = [{"image": "no.png", "text": "a"}, {"image": None, "text": "b"}]
  (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
  source = manifest.ManifestSource(split="train", path=str(tmp_path))
  with pytest.raises(ValueError, match="No file at.*no.png") as e:
    source[0]
  assert not isinstance(e.value, errors.UserError)
  assert source[1] == {"text": "b"}  # A row may lack its picture.


def test_a_broken_line_is_named_and_the_others_are_read(tmp_path):
  (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n{"a": \n[2]\n{"a": 3}')
  records = lines.JsonLines(str(tmp_path / "a.jsonl"))
  assert len(records) == 4 and records[0] == {"a": 1} and records[3] == {"a": 3}
  with pytest.raises(ValueError, match="line 3 of"):
    records[1]
  with pytest.raises(ValueError, match="line 4 of.*list, not an object"):
    records[2]


def test_lines_are_found_across_blocks(tmp_path, monkeypatch):
  monkeypatch.setattr(lines, "BLOCK", 7)
  rows = [json.dumps({"n": i, "x": "é" * (i % 13)}) for i in range(50)]
  (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
  records = lines.JsonLines(str(tmp_path / "a.jsonl"))
  assert [records[i]["n"] for i in range(len(records))] == list(range(50))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(lines, "MAX_LINE", 100)
  monkeypatch.setattr(lines, "BLOCK", 50)
  (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + b"x" * 1000)
  with pytest.raises(errors.UserError, match="Line 2 of.*longer than 100"):
    lines.JsonLines(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
  "header, message",
  [("a,a\n1,2\n", "distinct"), ("", "distinct"), (",\n1,2\n", "distinct")],
)
def test_a_header_has_distinct_names(tmp_path, header, message):
  (tmp_path / "a.csv").write_text(header)
  with pytest.raises(errors.UserError, match=message):
    lines.Table(str(tmp_path / "a.csv"), ",")


def test_a_row_of_other_cells_is_one_bad_example(tmp_path):
  (tmp_path / "a.csv").write_text('\ufeffa,b\n1,"x\ny"\n2\n3,4\n', "utf-8")
  table = lines.Table(str(tmp_path / "a.csv"), ",")
  assert len(table) == 3
  assert table[0] == {"a": "1", "b": "x\ny"} and table[2] == {
    "a": "3",
    "b": "4",
  }
  with pytest.raises(ValueError, match="row 2 of.*has 1 cells, its header 2"):
    table[1]


def test_shards_are_found_by_split_and_pattern(written):
  root = str(written("tar"))
  names = [f"{root}/train-0000.tar", f"{root}/train-0001.tar"]
  assert tar.find(root, "train") == tar.find(root, "") == names
  assert tar.find(f"{root}/train-{{0000..0001}}.tar", "any") == names
  assert tar.find("s{1..2}/a{08..10}.tar", "")[:4] == [
    "s1/a08.tar",
    "s1/a09.tar",
    "s1/a10.tar",
    "s2/a08.tar",
  ]
  with pytest.raises(errors.UserError, match="No tar shards of the split 'x'"):
    tar.find(root, "x")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, form):
  path = tmp_path / "a.tar"
  sizes = [0, 1, 511, 512, 513, 3000]
  with tarfile.open(path, "w", format=form) as archive:
    folder_info = tarfile.TarInfo("folder")
    folder_info.type = tarfile.DIRTYPE
    archive.addfile(folder_info)
    for size in sizes:
      source = tmp_path / "x"
      source.write_bytes(bytes([size % 251]) * size)
      name = "é" * 90 + f"{size}.bin" if size > 511 else f"{size}.bin"
      archive.add(source, name)
  shard = storage.File(str(path))
  with tarfile.open(path) as archive:
    want = [
      (m.name, archive.extractfile(m).read())
      for m in archive.getmembers()
      if m.isreg()
    ]
  got = [
    (n, shard.read(start, length)) for n, start, length in tar.members(shard)
  ]
  assert got == want and len(got) == len(sizes)


def test_a_shard_that_is_cut_short_or_compressed_is_named(written, tmp_path):
  whole = (written("tar") / "train-0000.tar").read_bytes()
  cut = tmp_path / "cut.tar"
  # Within the first file, behind it, and behind the last one.
  for size, message in (
    (550, "'0000.png' ends"),
    (600, "no end"),
    (4096, "no"),
  ):
    cut.write_bytes(whole[:size])
    match = f"cut.tar' is cut short: .*{message}"
    with pytest.raises(errors.UserError, match=match):
      tar.TarSource(split="train", path=str(cut))
  other = tmp_path / "other.tar"
  other.write_bytes(b"\x1f\x8b" + b"compressed" * 100)
  with pytest.raises(errors.UserError, match="other.tar' is no tar file"):
    tar.TarSource(split="train", path=str(other))


def test_named_classes_of_a_saved_data_set(written):
  source = arrow.ArrowSource(split="train", path=str(written("arrow")))
  assert source.class_names == {"kind": ("even", "odd")}
  assert [source[i]["kind"] for i in range(5)] == [
    "even",
    "odd",
    "even",
    "odd",
    "even",
  ]


def test_reading_beyond_the_end_says_where_the_file_ends(tmp_path):
  (tmp_path / "a").write_bytes(b"12345")
  file = storage.File(str(tmp_path / "a"))
  assert file.read(1, 3) == b"234" and file.read() == b"12345"
  with pytest.raises(ValueError, match="ends after 5 bytes, expected 9"):
    file.read(2, 7)
  with pytest.raises(errors.UserError, match="No file at"):
    storage.File(str(tmp_path / "b"))
