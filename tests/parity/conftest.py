"""Small random models of `transformers`, to be compared with ours."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
def library() -> Any:
  """`torch` and `transformers`; tests that ask for it are skipped without."""
  torch = pytest.importorskip("torch", reason="parity needs torch")
  try:
    import transformers

    transformers.BertModel  # noqa: B018 - it imports what it needs here.
  except ImportError as e:
    pytest.skip(f"parity needs transformers, which does not import: {e}")
  return SimpleNamespace(torch=torch, transformers=transformers)


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


@pytest.fixture(scope="session")
def pair(library, tmp_path_factory):
  """`pair(class name, config name, **sizes)`: a `Pair` of random weights."""
  from mmjax.build import converting

  torch, transformers = library.torch, library.transformers

  def make(name: str, config: str, **sizes: Any) -> Pair:
    torch.manual_seed(0)
    settings = getattr(transformers, config)(**sizes)
    model = getattr(transformers, name)(settings).eval()
    with torch.no_grad():
      for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
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
