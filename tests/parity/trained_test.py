"""Imported, trained for a step, exported: `transformers` then says the same."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_what_was_trained_here_goes_on_there(
  pair, tiny, vocab_size, texts, close, tmp_path
):
  from mmjax.build import converting, settings, training
  from mmjax.core import config as config_lib
  from mmjax.core import trees

  sizes = dict(tiny, max_position_embeddings=24, vocab_size=vocab_size)
  model = pair("BertForMaskedLM", "BertConfig", **sizes)
  converting.import_weights(model.folder, tmp_path / "imported")
  saved = json.loads((tmp_path / "imported/config.json").read_text())
  saved["init"]["from_checkpoint"] = str(tmp_path / "imported")
  saved["finetune"]["trainable"] = (".*",)
  saved["train"]["num_steps"] = 1
  saved["log"]["evaluate_at_end"] = False
  saved["optimizer"]["warmup_steps"] = 0
  config = settings.resolve(config_lib.from_plain(saved))
  training.Run(config, tmp_path / "trained").execute()
  converting.export_weights(
    config, tmp_path / "trained", "latest", tmp_path / "out", family="bert"
  )
  theirs = type(model.theirs).from_pretrained(tmp_path / "out").eval()
  mask = texts["mask"].astype(np.int64)
  with model.torch.no_grad():
    said = theirs(
      input_ids=model.torch.tensor(texts["ids"]),
      attention_mask=model.torch.tensor(mask),
    ).logits.numpy()

  ours = model.ours
  trained = converting.read_params(tmp_path / "trained", "latest")
  before = model.theirs.state_dict()
  after = theirs.state_dict()
  moved = [n for n in before if not model.torch.equal(before[n], after[n])]
  assert len(moved) > len(before) / 2
  # By our own parameters, not by those that came back.
  got = ours.experiment.parts.model.apply(
    {
      "params": trees.unflatten({n: jnp.asarray(x) for n, x in trained.items()})
    },
    jnp.asarray(texts["ids"]),
    texts["mask"],
    method=_logits,
  )
  close(np.asarray(got)[texts["mask"]], said[texts["mask"]])


def _logits(model, ids, mask):
  sequence = model.encode("text", ids, mask=jnp.asarray(mask), train=False)
  return model.head("mlm", sequence.x)
