"""What a family of released models is: two tables, read in both directions.

`keys` say which key of their config is which of ours, `rules` which of their
tensors is which of our parameters. A line that only some models of a family
need, those with a pooler, says so by `when`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.convert import configs, mapping, tensors
from mmjax.convert.configs import ABSENT, Key
from mmjax.core import errors

LABEL = "label"  # The part that is a head of classes.
LABELS = "heads_label/logits/bias"
# Files beside a config.json.
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = "tokenizer_config.json"
# `num_layers` of two towers.
TOWERS = {
  "encoders_text": "text_config.num_hidden_layers",
  "encoders_image": "vision_config.num_hidden_layers",
}


@dataclasses.dataclass(frozen=True)
class Found:
  """Which model of a family this is.

  `config` is theirs, with that of a tower under names such as
  "text_config.hidden_size"; `has` the names of its parts; `prefix` stands
  before the names of the backbone's tensors.
  """

  config: Mapping[str, Any]
  has: frozenset[str] = frozenset()
  prefix: str = ""
  num_labels: int = 0

  def holds(self, when: str) -> bool:
    """Whether a line of a table counts for this model.

    "a b": with both parts; "a|b": with one of them; "!a": without.
    """

    def one(word):
      part = word.removeprefix("!")
      return (part in self.has) != word.startswith("!")

    return all(any(map(one, words.split("|"))) for words in when.split())


@dataclasses.dataclass(frozen=True)
class Source:
  """What lies in a folder of released weights, or in a file."""

  config: Mapping[str, Any]  # config.json; empty if there is none.
  specs: Mapping[str, tensors.Spec]
  # Other JSON files beside it by path, e.g. "preprocessor_config.json".
  beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """A family of models, as data."""

  name: str
  keys: Sequence[Key]
  # Parts that a line needs, see `Found.holds`, and its rules; one whose names
  # have `{i}` counts for each layer. `{p}` is the prefix.
  rules: Sequence[tuple[str, Sequence[mapping.AnyRule]]]
  # Key of their config; of several stacks, by how our names of it begin.
  num_layers: str | Mapping[str, str] = "num_hidden_layers"
  prefix: str = ""  # Of the backbone's tensors where one of the `heads` is.
  # Their tensor and our parameter that tell whether a part is there; of others,
  # the first array of its lines tells.
  signs: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
  # Parts that stand beside the backbone; by default, those without `{p}`.
  heads: tuple[str, ...] | None = None
  architectures: Mapping[str, str] = dataclasses.field(default_factory=dict)
  recognizes: Callable[[Source], bool] | None = None
  # Completes config.json by what else lies there, and may drop parts.
  complete: Callable[[Source, set[str]], Mapping[str, Any]] | None = None
  # Their config of the one that `keys` made, where a key follows from others.
  derive: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
  # Other files to write beside config.json, of our config.
  files: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
  # What their config says of the id that ends a text, for a model that was not
  # converted; may refuse it.
  ending: Callable[[int], Mapping[str, Any]] | None = None
  writes: bool = True  # Whether models of ours can become such.
  told: tuple[str, ...] = ()  # Parts that `complete` finds.

  def __post_init__(self) -> None:
    known = {*self.parts, *self.told}
    for when in (*(key.when for key in self.keys), *(w for w, _ in self.rules)):
      for part in re.findall(r"\w+", when):
        if part not in known:
          raise errors.unknown(f"part of {self.name}", part, sorted(known))

  @functools.cached_property
  def parts(self) -> dict[str, tuple[str, str]]:
    """What not all models have: a tensor and a parameter that tell."""
    found = dict(self.signs)
    for when, rules in self.rules:
      part = when.partition(" ")[0]
      named = [r for r in rules if isinstance(r, mapping.Rule) and r.theirs]
      if named and part.isidentifier() and part not in found:
        names = named[0].theirs[0], named[0].ours[0]
        first = [n.replace("{i}", "0").replace("{i:02d}", "00") for n in names]
        found[part] = first[0], first[1]
    return found

  def fits(self, source: Source) -> bool:
    """Whether the source is of this family."""
    if self.recognizes is not None:
      return self.recognizes(source)
    return source.config.get("model_type") == self.name

  def find(self, source: Source) -> Found:
    """Which model of this family the source is.

    Raises:
      UserError: a variant that models here cannot be.
    """
    prefix = self.prefix
    if not any(name.startswith(prefix) for name in source.specs):
      prefix = ""
    names = {
      part: theirs.replace("{p}", prefix)
      for part, (theirs, _) in self.parts.items()
    }
    has = {part for part, name in names.items() if name in source.specs}
    config = configs.flat(source.config)
    if self.complete is not None:
      config.update(self.complete(source, has))
    found = Found({}, frozenset(has), prefix)
    self._refuse(source, prefix)
    self._complete(config, found)
    count = self._num_labels(source, prefix) if LABEL in has else 0
    return dataclasses.replace(found, config=config, num_labels=count)

  def sections(self, found: Found) -> dict[str, Any]:
    """Groups `model` and `data` of our config, and the objectives."""
    made: dict[str, Any] = {"model": {}, "data": {}, "objectives": {}}
    for key in self.keys:
      if not key.ours or not found.holds(key.when):
        continue
      value = key.value
      if key.theirs:
        value = key.into(found.config[key.theirs])
      *parents, last = key.ours.split(".")
      node = made
      for parent in parents:
        node = node.setdefault(parent, {})
      node[last] = value
    if "features" in made["objectives"]:
      wanted = made["objectives"]["features"]
      wanted.setdefault("outputs", found.num_labels)
    return made

  def found_rules(self, found: Found) -> list[mapping.AnyRule]:
    """The rules that count for a model, with its names in place."""
    out: list[mapping.AnyRule] = []
    for when, rules in self.rules:
      if not found.holds(when):
        continue
      for item in rules:
        r = mapping.placed(item, found.prefix, found.config)
        layered = isinstance(r, mapping.Rule) and "{i" in "".join(r.ours)
        out += mapping.layers(self._layers(found, r), [r]) if layered else [r]
    return out

  @property
  def all_heads(self) -> tuple[str, ...]:
    """Parts beside the backbone, which has a prefix where one is there."""
    if self.heads is not None:
      return self.heads
    return tuple(
      p for p, (theirs, _) in self.parts.items() if "{p}" not in theirs
    )

  def _num_labels(self, source, prefix):
    """As many as the head has biases."""
    name = next(
      r.theirs[0].replace("{p}", prefix)
      for _, rules in self.rules
      for r in rules
      if isinstance(r, mapping.Rule) and r.ours == (LABELS,)
    )
    spec = source.specs.get(name)  # What is missing is told with the rest.
    return spec.shape[-1] if spec else 0

  def _refuse(self, source, prefix):
    for _, rules in self.rules:
      for item in rules:
        if isinstance(item, mapping.Refused):
          pattern = mapping.placed(item, prefix, {}).pattern
          if found := [n for n in source.specs if re.fullmatch(pattern, n)]:
            raise errors.UserError(
              f"There is a tensor {found[0]!r}: {item.reason}."
            )

  def _complete(self, config, found):
    """Fills defaults in, those that are made of others at the end."""
    lines = [k for k in self.keys if k.theirs and found.holds(k.when)]
    made = {k.theirs for k in lines if callable(k.default)}
    last = [k for k in lines if callable(k.default)]
    last += [k for k in lines if k.theirs in made and not callable(k.default)]
    given = [k for k in lines if k.theirs not in made]
    for key in sorted(given, key=lambda key: key.default is ABSENT) + last:
      configs.read(key, config)

  def _layers(self, found, rule):
    """Of the stack that a rule is about."""
    name = self.num_layers
    if not isinstance(name, str):
      name = next(k for p, k in name.items() if rule.ours[0].startswith(p))
    return found.config[name]

  def origin(
    self,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    recorded: Mapping[str, Any],
  ) -> Found:
    """Which model of this family ours is.

    Args:
      config: ours, as plain values, resolved.
      shapes: of our parameters, by name.
      recorded: their config, if ours was made of one: it has keys that nothing
        here reads, and rows of tables before tokens were added.

    Raises:
      UserError: it is none; says which keys would have to be what.
    """
    has = frozenset(p for p, (_, ours) in self.parts.items() if ours in shapes)
    prefix = self.prefix if has & set(self.all_heads) else ""
    found = Found({}, has, prefix, shapes.get(LABELS, (0,))[-1])
    root = {**config, "objectives": self._objectives(config)}
    recorded = configs.flat(recorded)
    theirs: dict[str, Any] = {}
    of_data: dict[str, Any] = {}  # Nothing of the weights depends on it.
    problems = []
    for key in self.keys:
      if not found.holds(key.when):
        continue
      if not key.ours:
        kept = key.value if key.checked else recorded.get(key.theirs, key.value)
        theirs[key.theirs] = kept
        continue
      group, name, *_ = key.ours.split(".")
      if group == "objectives" and name not in root["objectives"]:
        continue
      value = _look_up(root, key.ours)
      if group == "data":
        if key.theirs and value is not None:
          of_data[key.theirs] = key.back(value)
      elif key.theirs and value is None:
        problems.append(f"{key.ours} does not say what {key.theirs!r} is")
      elif key.theirs:
        made = key.back(value)
        if theirs.setdefault(key.theirs, made) != made:
          problems.append(f"{key.ours}={value!r} contradicts another key")
      elif key.checked and _plain(value) != _plain(key.value):
        problems.append(f"{key.ours}={value!r}, expected {key.value!r}")
    if problems:
      raise errors.UserError(
        f"This model is no {self.name}: {'; '.join(problems)}."
      )
    for name in ("vocab_size", "text_config.vocab_size"):
      if theirs.get(name, 0) > recorded.get(name, 2**63):
        theirs[name] = recorded[name]
    config = self._dressed({**of_data, **recorded, **theirs}, found)
    return dataclasses.replace(found, config=config)

  def beside(self, found: Found) -> dict[str, Any]:
    """Files of a model but its weights, by name, as JSON has them."""
    more = self.files(found.config) if self.files else {}
    return {"config.json": configs.nested(found.config), **more}

  def _dressed(self, config, found):
    """What transformers wants to see besides."""
    config = self.derive(config) if self.derive else config
    config = {**config, "model_type": self.name}
    for part in (*self.all_heads, *self.parts, ""):
      if part in self.architectures and (not part or part in found.has):
        config["architectures"] = [self.architectures[part]]
        break
    known = len(config.get("id2label", ()))
    if found.num_labels and found.num_labels != known:
      numbers = range(found.num_labels)
      config["id2label"] = {str(i): f"LABEL_{i}" for i in numbers}
      config["label2id"] = {f"LABEL_{i}": i for i in numbers}
    return config

  def _objectives(self, config):
    """Objectives as `keys` call them: by what they are."""
    wanted = {
      key.ours.split(".")[1]: key.value
      for key in self.keys
      if re.fullmatch(r"objectives\.\w+\.name", key.ours)
    }
    there = {
      name: objective
      for task in config["tasks"].values()
      for name, objective in task["objectives"].items()
    }
    return {
      name: found
      for name, kind in wanted.items()
      # Of several of a kind, the one that is called as in `keys`.
      for alike in [{n: o for n, o in there.items() if o["name"] == kind}]
      for found in [alike.get(name, next(iter(alike.values()), None))]
      if found is not None
    }


def _look_up(root, path):
  node = root
  for part in path.split("."):
    if not isinstance(node, Mapping) or part not in node:
      return None
    node = node[part]
  return node


def _plain(value):
  return list(value) if isinstance(value, (tuple, list)) else value
