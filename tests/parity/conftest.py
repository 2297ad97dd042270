"""Small random models of `transformers`, to be compared with ours."""

import copy
import dataclasses
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

# Of random models: far more than their heads could have.
VOCABULARY = [
  "[PAD]",
  "[CLS]",
  "[SEP]",
  "[UNK]",
  "[MASK]",
  *"abcdefghijklmnopqrstuvwxyz",
  *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
TINY = dict(
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=40,
)


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Any]:
  """`peer(name)`: a library; tests that ask for it are skipped without.

  One that is there and does not import is an error: nobody reads skips.
  """
  from mmjax.bench.peers import libraries

  def load(name: str) -> Any:
    for needed in ("torch", name):
      if importlib.util.find_spec(needed) is None:
        pytest.skip(f"parity needs {needed}, which is not installed")
    return libraries.load(name)  # Beside a torchvision of another build too.

  return load


@pytest.fixture(scope="session")
def library(peer) -> Any:
  """`torch` and `transformers`."""
  return SimpleNamespace(torch=peer("torch"), transformers=peer("transformers"))


@dataclasses.dataclass(frozen=True)
class Pair:
  """A model of `transformers`, and ours of its files."""

  folder: Path
  theirs: Any
  ours: Any  # A `converting.Loaded`.
  torch: Any

  def run(self, **inputs: Any) -> dict[str, np.ndarray]:
    """What theirs returns for numpy arrays."""
    given = {name: self.torch.tensor(x) for name, x in inputs.items()}
    with self.torch.no_grad():
      made = self.theirs(**given, output_hidden_states=True)
    return {
      name: x.numpy()
      for name, x in dict(made, last=made["hidden_states"][-1]).items()
      if isinstance(x, self.torch.Tensor)
    }

  def apply(self, method: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a method of ours."""
    variables = {"params": self.ours.params}
    return self.ours.experiment.parts.model.apply(
      variables, *args, method=method, **kwargs
    )

  def loss(
    self, objective: Any, batch: Mapping[str, Any], **changes: Any
  ) -> Callable[[Any], Any]:
    """An objective, with `changes`, as a function of parameters.

    By its name in our config, or one that this lacks.
    """
    from mmjax.objectives.forward_once import ForwardOnce

    parts = self.ours.experiment.parts
    if isinstance(objective, str):
      objective = parts.objectives[objective].objective
    found = dataclasses.replace(objective, **changes)

    def loss(params):
      def call(method, *args, key, **kwargs):
        del key
        return parts.model.apply(
          {"params": params}, *args, method=method, **kwargs
        )

      apply = ForwardOnce(call, batch, train=False)
      term, _ = found(apply, batch, rng=jax.random.key(0), train=False)
      return term.total / term.weight

    return loss


@pytest.fixture(scope="session")
def pair(library, tmp_path_factory):
  """`pair(class name, config name, **sizes)`: a `Pair` of random weights.

  `values` are those of parameters that are not to be random.
  """
  from mmjax.build import converting

  torch, transformers = library.torch, library.transformers

  def make(
    name: str, config: str, *, values: Mapping[str, float] = {}, **sizes: Any
  ) -> Pair:
    torch.manual_seed(0)
    settings = getattr(transformers, config)(**sizes)
    model = getattr(transformers, name)(settings).eval()
    with torch.no_grad():
      for called, parameter in model.named_parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
        if called in values:
          parameter.fill_(values[called])
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return Pair(folder, model, converting.load(folder), torch)

  return make


@pytest.fixture(scope="session")
def texts() -> dict[str, np.ndarray]:
  """Ids and which are real: texts of 10, 6 and 3 tokens."""
  rng = np.random.default_rng(0)
  ids = rng.integers(5, len(VOCABULARY), (3, 10))
  mask = np.arange(10)[None] < np.array([[10], [6], [3]])
  return {"ids": np.where(mask, ids, 0), "mask": mask}


@pytest.fixture(scope="session")
def tiny() -> dict[str, int]:
  """Sizes of a small transformer."""
  return TINY


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
  """Of a tokenizer, for a vocab.txt."""
  return VOCABULARY


@pytest.fixture(scope="session")
def vocab_size() -> int:
  return len(VOCABULARY)


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
  return np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture(scope="session")
def close():
  """`close(got, expected)`: equal to 1e-4 of the largest."""

  def check(got: Any, expected: np.ndarray) -> None:
    assert np.shape(got) == np.shape(expected)
    scale = np.abs(expected).max()
    assert scale > 1e-2  # Not of a model that says nothing.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * scale)

  return check


@pytest.fixture(scope="session")
def close_gradients(tmp_path_factory):
  """`close_gradients(pair, loss, ours)`: both losses and all gradients agree.

  `loss` is a tensor of theirs, `ours` a function of our parameters, such as
  `Pair.loss` makes. Their gradients are saved in place of their weights and
  read by the family's rules, which are linear. A gradient may be off by 1e-4
  of its largest number; where it is 0 but for rounding (of a bias of keys),
  of a thousandth of the largest of all. Returns the largest such share.
  """
  from mmjax.core import trees

  def check(pair: Pair, loss: Any, ours: Callable[[Any], Any]) -> float:
    value, got = jax.jit(jax.value_and_grad(ours))(pair.ours.params)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-4)
    pair.theirs.zero_grad()
    loss.backward()
    expected = _their_gradients(pair, tmp_path_factory.mktemp("gradients"))
    got = {n: np.asarray(x) for n, x in trees.flatten(got).items()}
    largest = max(np.abs(x).max() for x in expected.values())
    worst = 0.0
    for name, gradient in expected.items():
      scale = max(np.abs(gradient).max(), 1e-3 * largest)
      off = np.abs(got[name] - gradient).max() / scale
      assert off < 1e-4, f"{name}: off by {off:.1e} of {scale:.1e}"
      worst = max(worst, float(off))
    return worst

  return check


def _their_gradients(pair: Pair, folder: Path) -> dict[str, np.ndarray]:
  """By the names of our parameters, without those that only ours has."""
  from mmjax.convert import mapping, source
  from mmjax.core import trees

  with pair.torch.no_grad():
    saved = copy.deepcopy(pair.theirs)
    both = zip(saved.parameters(), pair.theirs.parameters(), strict=True)
    for parameter, theirs in both:
      parameter.zero_()
      if theirs.grad is not None:
        parameter.copy_(theirs.grad)
  saved.save_pretrained(folder)
  opened, files = source.open_source(folder)
  kind = source.family_of(opened, pair.ours.record["family"])
  rules = kind.found_rules(kind.find(opened))
  shapes = {n: x.shape for n, x in trees.flatten(pair.ours.params).items()}
  made = {}
  for rule in rules:
    if isinstance(rule, mapping.Rule) and rule.theirs:
      made |= _rule_gradients(rule, files.read, shapes)
  return made


def _rule_gradients(rule, read, shapes):
  from mmjax.convert.transforms import Rows, WithClass

  how, arrays = rule.how, [read(name) for name in rule.their_names]
  if isinstance(how, WithClass):  # Ours is a sum: its gradient is that of each.
    arrays[0] = np.zeros_like(arrays[0])
  if isinstance(how, Rows):  # Rows that only ours has are given to no one.
    how = dataclasses.replace(how, fill=0.0)
  made = how.into(arrays, [shapes[name] for name in rule.our_names])
  return dict(zip(rule.our_names, made, strict=True))


@pytest.fixture(scope="session")
def there_and_back(library, tmp_path_factory):
  """`there_and_back(pair)`: theirs, of the export of a workdir of ours."""
  from mmjax.build import converting, settings
  from mmjax.core import config as config_lib

  def run(pair: Pair) -> tuple[Path, Any]:
    base = tmp_path_factory.mktemp("back")
    converting.import_weights(pair.folder, base / "run")
    text = (base / "run/config.json").read_text()
    saved = config_lib.from_plain(json.loads(text))
    config = settings.resolve(saved)
    converting.export_weights(config, base / "run", "latest", base / "hf")
    model = type(pair.theirs).from_pretrained(base / "hf").eval()
    return base / "hf", model

  return run
