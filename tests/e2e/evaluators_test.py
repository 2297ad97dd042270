"""All evaluators that need no visual tokenizer, on one real model."""

import functools
import json
import math
from pathlib import Path

import jax
import pytest
from flax import linen as nn

from mmjax.build import evaluation, experiment, settings
from mmjax.core import config as config_lib
from mmjax.report import displays, evaluations

pytestmark = pytest.mark.slow
TINY = Path(__file__).with_name("tiny.py")
TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)


def _config():
  config = config_lib.load(f"{TINY}:pretrain")
  classes = dict(label=dict(field="group"))
  several = dict(
    label=dict(
      field="tags_en",
      multi_label=True,
      names=("circle", "diamond", "square", "triangle"),
      ignore_others=True,
    )
  )
  config.data = dict(
    source="synthetic", image=dict(size=16), text=dict(max_tokens=12)
  )
  config.model.encoders.image.patch_size = 8
  config.model.visual_tokenizer = {}
  config.model.decoders = dict(
    text=dict(name="text", size=TOWER), answer=dict(name="text", size=TOWER)
  )
  config.finetune.frozen = ()
  asked = dict(
    question=dict(templates=(("what shape?", "group"),)),
    text=dict(field="question"),
    answer=dict(field="answer_text", max_tokens=5),
    label=dict(field="group"),
  )
  config.tasks = dict(
    words=dict(
      objectives=dict(
        match=dict(name="contrastive"), caption=dict(name="captioning")
      )
    ),
    shapes=dict(
      data=classes, objectives=dict(shape=dict(name="classification"))
    ),
    sides=dict(
      data=several,
      objectives=dict(
        tags=dict(name="classification", multi_label=True, head="tags")
      ),
    ),
    questions=dict(
      data=asked,
      objectives=dict(
        pick=dict(name="vqa", head="pick"), say=dict(name="vqa", generate=True)
      ),
    ),
  )
  held_out = dict(data=dict(split="test"))
  shape = dict(task="shapes", **held_out)
  fitted = dict(shape, train_data=dict(split="test"))
  question = dict(task="questions", **held_out)
  short = dict(generation=dict(max_tokens=3))
  config.evaluators = dict(
    captioning=dict(name="captioning", task="words", **held_out, **short),
    classification=dict(name="classification", **shape),
    few_shot=dict(name="few_shot", shots=(2,), **fitted),
    knn=dict(name="knn", **fitted),
    loss=dict(name="loss", task="words", **held_out),
    perplexity=dict(name="perplexity", task="words", **held_out),
    retrieval=dict(name="retrieval", group="concept", **held_out),
    several=dict(name="classification", task="sides", head="tags", **held_out),
    vqa=dict(name="vqa", head="pick", by="group", **question),
    vqa_generated=dict(name="vqa_generated", by="group", **question, **short),
    zero_shot=dict(name="zero_shot", templates=("{}", "a {}"), **shape),
  )
  config.train.batch_size = 32
  return config


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Results, and the workdir that they were written to."""
  workdir = tmp_path_factory.mktemp("run")
  config = settings.resolve(_config())
  made = experiment.prepare(config, jax.devices()[:1])
  init = functools.partial(
    experiment.init_variables, parts=made.parts, batch_size=8
  )
  variables = nn.meta.unbox(jax.jit(init)(jax.random.key(0)))
  runner = evaluation.Evaluation(config, made, workdir)
  return runner.run(variables, 3, pictures=True), workdir


def test_every_number_is_finite_and_in_the_file(written):
  results, workdir = written
  path = workdir / "evaluations" / "00000003" / "metrics.json"
  assert json.loads(path.read_text()) == results
  assert all(math.isfinite(value) for value in results.values())
  assert {name.partition("/")[0] for name in results} == set(
    _config().evaluators
  )


def test_perplexity_is_e_to_the_loss(written):
  results, _ = written
  assert results["perplexity/caption"] == pytest.approx(
    math.exp(results["loss/caption/loss"]), rel=1e-5
  )


def test_accuracies_by_kind_average_to_the_whole(written):
  results, _ = written
  for name in ("vqa", "vqa_generated"):
    kinds = [v for k, v in results.items() if k.startswith(f"{name}/accuracy/")]
    assert len(kinds) == 4
    whole = results[f"{name}/accuracy"]
    assert min(kinds) <= whole <= max(kinds)


def test_the_report_can_show_all_that_was_drawn(written):
  _, workdir = written
  _, artifacts, notes = evaluations.read(workdir)
  assert not notes
  shown = displays.display_all(artifacts)
  assert {d.artifact.evaluator for d in shown} >= {
    "captioning",
    "classification",
    "retrieval",
    "several",
    "vqa",
    "vqa_generated",
    "zero_shot",
  }
  assert not [d.problem for d in shown if d.problem]
