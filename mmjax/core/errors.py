"""The one exception that means: the user can fix this."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Something in a config, a file or a command is wrong.

  The text says what is wrong, what was got, what is allowed and what to do.
  The command line prints it without a traceback and exits with status 2; any
  other exception is a fault of the program and exits with status 1.
  """


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns " Did you mean 'x'?" or "", for the end of a sentence."""
  matches = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
  return f" Did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
  """Builds the error for a name that is in no table."""
  known = sorted(str(k) for k in known)
  return UserError(
    f"Unknown {kind} {name!r}.{nearest(name, known)} Known: {known}."
  )
