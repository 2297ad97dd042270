r"""The tables of a family as text: a line for each key, array or module.

Of configs (`keys`) and of weights (`rules`) alike:

    [OURS. <-> THEIRS. if PART]     what stands before all names that follow
    name <-> name                   the same on both sides
    name <-> /name                  / is for what is named in full
    name <-> name : HOW             another value or layout, see below
    name <-> name if PART           only of models with it, see `Found.holds`
    @name                           the lines of that name in `lines`
    # words                         a comment; \ goes on in the next line

`{query,key,value}` says a name three times. Of configs besides:

    name <-> name ? 1e-5            what it is where their config lacks it,
    name <-> name ? 1e-5 : HOW      before it is converted
    name=value name=value           what ours has to be
    name=value if PART else value   ... with it, and without
    <-> name=value name=value       what theirs has to be
    name~value                      what ours is after an import, or theirs
                                    after an export; not checked

Values are literals of Python or words, without spaces. HOW is the name of two
functions, that which makes ours of theirs, and its inverse: see `WAYS` of
`vocabulary`. Where one is special to a family, `$name` is what the table is
given; a default may be a function of their config. It counts for all lines with
that key of theirs.

Of weights besides:

    name : absent(...)              ours alone
    = name of name                  theirs alone: has to equal the second
    - REGEX : why                   theirs alone: left out
    ! REGEX : why                   theirs alone: refused

HOW is a transform of one array, see `ARRAYS`, or of the parameters of a module,
see `MODULES`. Arguments are numbers, of `ARRAYS` also keys of their config.
`{p}` is the prefix of their backbone, `{i}` the number of a layer. REGEX is of
names in full.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmjax.convert import lines as shared
from mmjax.convert.configs import ABSENT, Key
from mmjax.convert.mapping import AnyRule, Copy, Ignored, Refused, rule
from mmjax.convert.vocabulary import ARRAYS, MODULES, TOGETHER, WAYS
from mmjax.core import errors

_ARROW = "<->"
_HEADER = re.compile(r"\[(\S*?)(?: <-> (\S*?))?(?: if (.+))?\]")
_FIXED = re.compile(r"([\w./{},]+)([=~])([^=~\s]\S*)")
_CONTINUED = re.compile(r"\\\n\s*")
_CALL = re.compile(r"(\w+)(?:\(([\w., ]*)\))?")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
# What names may be, and what may stand after `if`.
_NAME = re.compile(r"(\{p\})?([\w./-]|\{i(:02d)?\})+")
_WHEN = re.compile(r"(!?(?!if\b|and\b|or\b|not\b|else\b)\w+\|?\b ?)*")


@dataclasses.dataclass(frozen=True)
class _Line:
  text: str
  # What stands before its names, and which parts it needs: by what is above,
  # and by itself.
  ours: str = ""
  theirs: str = ""
  above: str = ""
  own: str = ""

  @property
  def when(self) -> str:
    return f"{self.above} {self.own}".strip()

  def our_names(self, name: str) -> list[str]:
    return _spread(name[1:] if name.startswith("/") else self.ours + name)

  def their_names(self, name: str) -> list[str]:
    return _spread(name[1:] if name.startswith("/") else self.theirs + name)


def keys(text: str, **given: Any) -> tuple[Key, ...]:
  """The table of configs.

  Args:
    text: see above.
    **given: what `$name` stands for: values, functions of their config, ways.

  Raises:
    ValueError: a line that can't be read, or says a key of ours again.
  """
  made: list[Key] = []
  for line in _lines(text, shared.KEYS):
    made += _read(line, _keys_of, given)
  ours = [(key.ours, key.when) for key in made if key.ours]
  if twice := sorted({x for x in ours if ours.count(x) > 1}):
    raise ValueError(f"Keys that are said twice: {twice}.")
  return tuple(made)


def rules(text: str) -> tuple[tuple[str, list[AnyRule]], ...]:
  """The table of weights: which parts a line needs, and its rules.

  Args:
    text: see above.

  Raises:
    ValueError: a line that can't be read.
  """
  return tuple(
    (line.when, _read(line, _rules_of)) for line in _lines(text, shared.RULES)
  )


def _keys_of(line: _Line, given: Mapping[str, Any]) -> list[Key]:
  left, arrow, right = _parted(line.text, _ARROW)
  if not arrow or not left:
    return _fixed(line, right if arrow else left, bool(arrow), given)
  right, _, how = _parted(right, " : ")
  right, _, text = _parted(right, " ? ")
  into, back = _given(how, given) if how.startswith("$") else _known(how, WAYS)
  default = _value(text, given) if text else ABSENT
  return [
    Key(*names, ABSENT, default, into, back, line.when)
    for names in _pairs(line.our_names(left), line.their_names(right))
  ]


def _fixed(
  line: _Line, text: str, is_theirs: bool, given: Mapping[str, Any]
) -> list[Key]:
  """Keys of one side whose values the table says."""
  own, _, other = _parted(line.own, " else ")
  words = text.split()
  if other and (len(words) > 1 or " " in other):
    raise ValueError("one name=value before 'if', and one value after 'else'")
  made = []
  for word in words:
    found = _FIXED.fullmatch(word)
    if found is None:
      raise ValueError(f"{word!r} is no name=value, nor name~value")
    name, sign, value = found.groups()
    cases = [(own, value)] + ([(_not(own), other)] if other else [])
    names = line.their_names(name) if is_theirs else line.our_names(name)
    made += [
      Key(
        ours="" if is_theirs else full,
        theirs=full if is_theirs else "",
        value=_value(value, given),
        when=f"{line.above} {when}".strip(),
        checked=sign == "=",
      )
      for full in names
      for when, value in cases
    ]
  return made


def _rules_of(line: _Line) -> list[AnyRule]:
  sign, _, rest = _parted(line.text, " ")
  if sign in ("-", "!"):
    pattern, _, why = _parted(rest, " : ")
    re.compile(pattern.replace("{p}", ""))
    if not why:
      raise ValueError("' : ' and a reason are missing")
    return [Ignored(pattern, why) if sign == "-" else Refused(pattern, why)]
  if sign == "=":
    name, of, other = _parted(rest, " of ")
    if not of:
      raise ValueError("' of ' is missing")
    pairs = _pairs(line.their_names(name), line.their_names(other))
    return [Copy(*names) for names in pairs]
  text, _, how = _parted(line.text, " : ")
  left, arrow, right = _parted(text, _ARROW)
  ours = [n.replace("{i}", "{i:02d}") for n in line.our_names(left)]
  call = _CALL.fullmatch(how or "same")
  if call is None:
    raise ValueError(f"{how!r} is no word, nor word(arguments)")
  kind = call[1]
  _known(kind, {**ARRAYS, **MODULES})
  args = [_value(x) for x in re.findall(r"[^\s,]+", call[2] or "")]
  if not arrow:
    if kind != "absent":
      raise ValueError(f"{_ARROW} is missing")
    return [rule(name, (), _transform(kind, args)) for name in ours]
  return _rules_between(ours, line.their_names(right), kind, args)


def _rules_between(
  ours: list[str], theirs: list[str], kind: str, args: list[Any]
) -> list[AnyRule]:
  pairs: list[Any] = [(ours, theirs)]
  if kind not in TOGETHER:
    pairs = _pairs(ours, theirs)
  elif len(ours) < 2:
    raise ValueError(f"{kind!r} is of several of ours")
  if kind not in MODULES:
    return [rule(a, b, _transform(kind, args)) for a, b in pairs]
  if any(isinstance(x, str) for x in args):
    raise ValueError(f"{kind!r} takes numbers, not {args}")
  return [
    rule(_longer(a, f"/{x}"), _longer(b, y), transform)
    for a, b in pairs
    for x, y, transform in MODULES[kind](*args)
  ]


def _lines(text: str, known: Mapping[str, str]) -> Iterator[_Line]:
  """The lines, those of `known` in place of their names."""
  ours = theirs = above = ""
  for raw in _CONTINUED.sub("", text).splitlines():
    line = " ".join(raw.split())
    if header := _HEADER.fullmatch(line):
      ours, theirs, above = (word or "" for word in header.groups())
      _check_when(line, above)
    elif line.startswith("["):
      raise ValueError(f"The line {line!r} is no [OURS <-> THEIRS if PART].")
    elif line and not line.startswith("#"):
      line, _, own = _parted(line, " if ")
      _check_when(line, own.partition(" else ")[0])
      if not line.startswith("@"):
        yield _Line(line, ours, theirs, above, own)
        continue
      name = line[1:]
      if name not in known:
        raise errors.unknown("table of shared lines", name, known)
      for one in _lines(known[name], known):
        outer = f"{above} {own} {one.above}".split()
        yield dataclasses.replace(
          one,
          ours=ours + one.ours,
          theirs=theirs + one.theirs,
          above=" ".join(outer),
        )


def _check_when(line: str, when: str) -> None:
  if not _WHEN.fullmatch(when):
    raise ValueError(f"After the line {line!r}, 'if {when}' can't be read.")


def _read(line: _Line, read: Callable[..., Any], *args: Any) -> Any:
  try:
    return read(line, *args)
  except (ValueError, TypeError, re.error) as e:
    raise ValueError(f"The line {line.text!r} can't be read: {e}.") from e


def _parted(text: str, sign: str) -> tuple[str, str, str]:
  left, found, right = text.partition(sign)
  return left.strip(), found, right.strip()


def _spread(name: str) -> list[str]:
  """All names that one with braces stands for."""
  found = _BRACES.search(name)
  if found is None:
    if not _NAME.fullmatch(name):
      raise ValueError(f"{name!r} is no name")
    return [name]
  words, (start, end) = found[1].split(","), found.span()
  return [
    n for word in words for n in _spread(name[:start] + word + name[end:])
  ]


def _pairs(ours: list[str], theirs: list[str]) -> list[tuple[str, str]]:
  """One of each; a single one of theirs goes with all."""
  theirs = theirs * len(ours) if len(theirs) == 1 else theirs
  if len(ours) != len(theirs):
    raise ValueError(f"{len(ours)} names and {len(theirs)}")
  return list(zip(ours, theirs, strict=True))


def _not(when: str) -> str:
  """The models for which `when` does not hold."""
  words = when.replace("|", " ").split()
  if not words or (" " in when and "|" in when):
    raise ValueError(f"no 'else' after {when!r}")
  inverse = [w[1:] if w.startswith("!") else f"!{w}" for w in words]
  return ("|" if " " in when else " ").join(inverse)


def _value(text: str, given: Mapping[str, Any] | None = None) -> Any:
  if text.startswith("$"):
    return _given(text, given or {})
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if text.lower() in ("true", "false", "null"):
      raise ValueError(f"{text!r} is no literal of Python") from None
    return text


def _given(name: str, given: Mapping[str, Any]) -> Any:
  if name[1:] not in given:
    raise ValueError(f"the table is not given {name!r}")
  return given[name[1:]]


def _known(name: str, known: Mapping[str, Any]) -> Any:
  if name not in known:
    raise errors.unknown("word of a table", name, [k for k in known if k])
  return known[name]


def _transform(kind: str, args: list[Any]) -> Any:
  """A transform, or what makes it of their config that has its arguments."""
  make = ARRAYS[kind]
  if any(isinstance(x, str) for x in args):
    return lambda c: make(*(c[x] if isinstance(x, str) else x for x in args))
  return make(*args)


def _longer(names: Any, end: str) -> Any:
  return [n + end for n in names] if isinstance(names, list) else names + end
