"""A conversation with a model in a terminal: lines in, replies out.

Lines may also come from a file or a pipe; they are then repeated, so that what
is printed is the whole conversation.
"""

import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich import console as rich_console

from mmjax.core import errors

YOU, MODEL = "you> ", "model> "
HELP = """\
/image FILE   show a picture with the next message; several times, several
/reset        forget the conversation
/help         this text
/quit         leave; so does Ctrl-D. Ctrl-C stops a reply."""
COMMANDS = ("/help", "/image", "/quit", "/reset")


@runtime_checkable
class Chat(Protocol):
  """What a session talks to, see `mmjax.build.chat.Chat`."""

  left_out: int  # Messages that the last question pushed out.

  def show(self, file: str) -> None: ...

  def ask(self, text: str) -> Generator[str, None, None]: ...

  def reset(self) -> None: ...


class Session:
  """Runs a conversation; knows neither the model nor the terminal.

  Args:
    chat: answers.
    read: next line, or None at the end; Ctrl-C raises KeyboardInterrupt.
    write: prints a piece of a reply at once, without a line break.
    note: prints a line that is no reply.
  """

  def __init__(
    self,
    chat: Chat,
    read: Callable[[], str | None],
    write: Callable[[str], None],
    note: Callable[[str], None],
  ):
    self._chat = chat
    self._read = read
    self._write = write
    self._note = note

  def run(self) -> None:
    """Goes on until the lines end, or /quit."""
    while True:
      try:
        line = self._read()
      except KeyboardInterrupt:
        self._note("Ctrl-C stops a reply; /quit or Ctrl-D leaves.")
        continue
      if line is None or line.strip() == "/quit":
        return
      try:
        self._take(line.strip())
      except errors.UserError as e:
        self._note(str(e))

  def _take(self, line):
    if line.startswith("/"):
      command, _, argument = line.partition(" ")
      self._obey(command, argument.strip())
    else:
      self._ask(line)

  def _obey(self, command, argument):
    if command == "/help":
      self._note(HELP)
    elif command == "/reset":
      self._chat.reset()
      self._note("Forgotten.")
    elif command == "/image":
      if not argument:
        raise errors.UserError("/image needs a file: /image cat.png")
      self._chat.show(argument)
      self._note(f"{argument} goes with the next message.")
    else:
      raise errors.unknown("command", command, COMMANDS)

  def _ask(self, text):
    try:
      pieces = self._chat.ask(text)
      if self._chat.left_out:
        self._note(
          "The conversation is longer than the model reads: the first "
          f"{self._chat.left_out} messages are left out from here on."
        )
      self._write(MODEL)
      try:
        for piece in pieces:
          self._write(piece)
      finally:
        pieces.close()  # What was said is remembered.
    except KeyboardInterrupt:
      self._write(" ... (stopped)")
    self._write("\n")


def check_inputs(flags: Any) -> None:
  """Checks that nothing is given that a conversation takes later.

  Raises:
    UserError: something is.
  """
  for name in ("image", "audio", "video", "prompt", "answers"):
    if flags[name].value:
      raise errors.UserError(
        f"--chat asks for messages and takes pictures by '/image FILE': leave "
        f"--{name} out, or --chat."
      )


def run(config: Any, workdir: Path, step: str, settings: Any) -> int:
  """Opens the model of a run and talks with it until the user leaves.

  Args:
    config: of the run.
    workdir: its folder.
    step: checkpoint: latest, best or a step.
    settings: how replies are said, `GenerationSettings`.
  """
  from mmjax.build import chat as chat_lib

  chat = chat_lib.open_chat(config, workdir, step, settings)
  console = rich_console.Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True
  )
  typed = sys.stdin.isatty()
  if typed:
    with contextlib.suppress(ImportError):
      import readline  # noqa: F401  Arrow keys.
    console.print(HELP, style="dim")

  def read():
    if typed:
      with contextlib.suppress(EOFError):
        return console.input(YOU)
      return None
    line = sys.stdin.readline()
    if line:
      console.print(f"{YOU}{line.rstrip()}")
    return line or None

  def write(piece):
    console.print(piece, end="")
    console.file.flush()

  def note(text):
    console.print(f"[{text}]", style="dim")

  Session(chat, read, write, note).run()
  return 0
