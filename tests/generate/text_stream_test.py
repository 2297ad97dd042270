import pytest

from mmjax.data.tokenizer import TextTokenizer
from mmjax.generate.text_stream import TextStream


def _letters(ids):
  return "".join(map(chr, ids))


def _pieces(text, stop, *, decode=_letters):
  ids = [ord(c) for c in text]
  stream = TextStream(decode, stop)
  pieces = [stream.push(ids[: i + 1]) for i in range(len(ids) - 1)]
  return [*pieces, stream.push(ids, last=True)], stream


def test_pieces_make_the_text():
  pieces, stream = _pieces("a red fox", ())

  assert pieces == list("a red fox")
  assert not stream.stopped


@pytest.mark.parametrize(
  ("text", "stop", "expected"),
  [
    ("one. two", (".",), "one"),
    ("User: hi", ("User:",), ""),
    ("a;b.c", (".", ";"), "a"),
    # What looks like the beginning of a stop string, and isn't.
    ("abaabab", ("abab",), "aba"),
    ("Use me", ("User:",), "Use me"),
    ("tail Us", ("User:",), "tail Us"),
  ],
)
def test_a_text_ends_before_a_stop_string(text, stop, expected):
  pieces, stream = _pieces(text, stop)

  assert "".join(pieces) == expected == stream.text
  assert stream.stopped == (expected != text)


def test_a_piece_is_held_back_no_longer_than_needed():
  pieces, _ = _pieces("aUb", ("User:",))

  assert pieces == ["a", "", "Ub"]


def test_a_character_of_several_tokens_comes_whole():
  tokenizer = TextTokenizer.load("starter")
  ids = tokenizer.pieces("ꙮ 日")
  stream = TextStream(tokenizer.decode)

  pieces = [stream.push(ids[: i + 1]) for i in range(len(ids))]

  assert "" in pieces  # Held back.
  assert "".join(pieces) == "ꙮ 日"
  assert "\ufffd" not in "".join(pieces)
