import textwrap

import numpy as np
import pytest

from mmjax.build import conformance, specimen
from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.objectives import OBJECTIVES

FINITE, CHANCE, FILLERS, ORDER, IGNORED, DEVICES, HALF = conformance.CHECKS

# An objective that needs no encoder: a linear map of the label.
GOOD = """
  import dataclasses
  import math
  import jax
  import jax.numpy as jnp
  from mmjax.core.batch import FieldSpec
  from mmjax.core.interfaces import LossTerm
  from mmjax.objectives import losses

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Good:
    num_classes: int

    def values(self, apply, batch):
      x = jax.nn.one_hot(batch["label"], self.num_classes)
      logits = apply("head", "guess", x)
      return losses.cross_entropy(logits, batch["label"])

    def __call__(self, apply, batch, *, rng, train):
      values = self.values(apply, batch)
      mask = losses.counted(batch, ("label",), values)
      return losses.masked_sum(values, mask), {}

    def fields(self, info):
      return {"label": FieldSpec((), "int32")}

    def heads(self, info):
      head = {"name": "linear", "num_classes": self.num_classes}
      return {"guess": head}

    def chance(self, info, batch_size):
      return math.log(self.num_classes)

  class CountsFillers(Good):
    def __call__(self, apply, batch, *, rng, train):
      values = self.values(apply, batch)
      return LossTerm(jnp.sum(values), jnp.float32(len(values))), {}

  class Divides(Good):
    def __call__(self, apply, batch, *, rng, train):
      term, metrics = super().__call__(apply, batch, rng=rng, train=train)
      return LossTerm(term.total / term.weight, jnp.float32(1)), metrics

  class LooksAtRows(Good):
    def values(self, apply, batch):
      values = super().values(apply, batch)
      return values * (1 + jnp.arange(len(values)) / len(values))

  class Boasts(Good):
    def chance(self, info, batch_size):
      return 0.5

  class Rounds(Good):
    def values(self, apply, batch):
      values = super().values(apply, batch)
      return values + (100 if apply("pool", "text").dtype != jnp.float32 else 0)

    def fields(self, info):
      from mmjax.core.batch import modality_fields
      return super().fields(info) | modality_fields("text")
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
  """`failed(name)` are the checks that a class of `GOOD` does not pass."""
  folder = tmp_path_factory.mktemp("objectives")
  (folder / "specimens.py").write_text(textwrap.dedent(GOOD))
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)

    def run(name):
      findings = conformance.check_objective(f"specimens:{name}")
      assert [f.check for f in findings] == list(conformance.CHECKS)
      return {f.check for f in findings if f.passed is False}

    yield run


@pytest.mark.parametrize(
  "name, expected",
  [
    ("Good", set()),
    # The class of a filler is noise, too.
    ("CountsFillers", {FILLERS, IGNORED}),
    ("LooksAtRows", {CHANCE, ORDER}),
    ("Boasts", {CHANCE}),
    ("Rounds", {HALF}),
  ],
)
def test_each_check_finds_what_it_is_for(failed, name, expected):
  assert failed(name) == expected


def test_a_loss_that_is_not_finite_is_found(failed):
  # Divides 0 by 0 where nothing counts.
  assert FILLERS in failed("Divides")


def test_a_class_that_is_no_objective_is_refused():
  with pytest.raises(errors.UserError, match="is not an objective: it lacks"):
    conformance.Trial("mmjax.core.batch:FieldSpec", dict(shape=(), dtype="i"))


def test_the_table_has_a_line_for_each_check():
  findings = [
    conformance.Finding("a", True, "1"),
    conformance.Finding("long", False, "2"),
    conformance.Finding("b", None, "3"),
  ]
  assert conformance.describe(findings).splitlines() == [
    "  a     ok      1",
    "  long  FAILED  2",
    "  b     -       3",
  ]


def test_noise_stands_only_where_nothing_counts():
  specs = modality_fields("image", "text", "audio", "video")
  batch = specimen.batch(specs, np.random.default_rng(0))
  assert all(spec.matches(batch[name]) for name, spec in specs.items())
  assert not batch["example_mask"][-1] and batch["example_mask"][:-1].all()

  noisy = specimen.junk(batch, np.random.default_rng(1))

  real = batch["example_mask"] & batch["text_present"]
  mask = batch["text_mask"] & real[:, None]
  changed = noisy["text"] != batch["text"]
  assert changed[~mask].any() and not changed[mask].any()
  pictures = (noisy["image"] != batch["image"]).any(axis=(1, 2, 3))
  real = batch["example_mask"] & batch["image_present"]
  assert pictures[~real].all() and not pictures[real].any()


# What an objective needs beside its defaults: fields, sections of the model.
NEEDS: dict[str, dict] = {}


# What one does not pass, by design.
FAILS = {"features": {FINITE}}  # It learns nothing: no gradient.


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_of_the_library_passes(name):
  findings = conformance.check_objective(name, **NEEDS.get(name, {}))
  table = conformance.describe(findings)
  failed = {f.check for f in findings if f.passed is False}
  assert failed == FAILS.get(name, set()), f"{name}\n{table}"
