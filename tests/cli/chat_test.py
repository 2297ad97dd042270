import pytest

from mmjax.cli import chat
from mmjax.core import errors


class Parrot:
  """Repeats what it hears, word by word; remembers what was taken of it."""

  def __init__(self):
    self.heard, self.shown, self.left_out, self.closed = [], [], 0, 0

  def show(self, file):
    if file == "bad.png":
      raise errors.UserError("Cannot show 'bad.png'.")
    self.shown.append(file)

  def reset(self):
    self.heard, self.shown = [], []

  def ask(self, text):
    if not text:
      raise errors.UserError("Nothing is asked.")
    self.heard.append(text)
    return self._say(text)

  def _say(self, text):
    try:
      for word in text.split():
        if word == "STOP":
          raise KeyboardInterrupt
        yield word + " "
    finally:
      self.closed += 1


@pytest.fixture
def talk():
  """`talk(lines)` runs a session; returns the parrot and what was printed."""

  def run(*lines, parrot=None):
    parrot = parrot or Parrot()
    rest, printed = list(lines), []

    def read():
      line = rest.pop(0) if rest else None
      if line is KeyboardInterrupt:
        raise KeyboardInterrupt
      return line

    note = lambda text: printed.append(f"[{text}]\n")  # noqa: E731
    chat.Session(parrot, read, printed.append, note).run()
    assert not rest or "/quit" in lines
    return parrot, "".join(printed)

  return run


def test_replies_come_piece_by_piece_until_the_lines_end(talk):
  parrot, printed = talk("hello there", "  bye ")
  assert printed == "model> hello there \nmodel> bye \n"
  assert parrot.heard == ["hello there", "bye"]


def test_commands_do_what_they_say(talk):
  parrot, printed = talk(
    "/image my cat.png", "what?", "/help", "/quit", "never read"
  )
  assert parrot.shown == ["my cat.png"] and parrot.heard == ["what?"]
  assert "[my cat.png goes with the next message.]" in printed
  for command in chat.COMMANDS:
    assert command in printed
  assert talk("one", "/reset", "two")[0].heard == ["two"]


def test_ctrl_c_stops_a_reply_and_not_the_session(talk):
  parrot, printed = talk("one STOP two", "three")
  assert printed == "model> one  ... (stopped)\nmodel> three \n"
  assert parrot.heard == ["one STOP two", "three"] and parrot.closed == 2
  _, printed = talk(KeyboardInterrupt, "four")
  assert printed.startswith("[Ctrl-C stops a reply; /quit or Ctrl-D leaves.]\n")
  assert printed.endswith("model> four \n")


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("/imge cat.png", "Did you mean '/image'?"),
    ("/image", "/image needs a file"),
    ("/image bad.png", "Cannot show 'bad.png'."),
    ("   ", "Nothing is asked."),
  ],
)
def test_a_mistake_is_named_and_the_session_goes_on(talk, line, message):
  parrot, printed = talk(line, "hello")
  assert message in printed and printed.endswith("model> hello \n")
  assert parrot.heard == ["hello"] and parrot.shown == []


def test_what_no_longer_fits_is_said(talk):
  parrot = Parrot()
  parrot.left_out = 3
  _, printed = talk("hello", parrot=parrot)
  assert "the first 3 messages are left out" in printed
