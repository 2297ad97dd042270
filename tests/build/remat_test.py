"""What is computed again, by the memory that there is."""

import math
import types
from unittest import mock

import jax
import pytest

from mmjax.build import experiment, remat


@pytest.fixture
def needed(monkeypatch):
  """Bytes by policy; the step is not compiled for them."""
  sizes = {"none": 300.0, "dots": 200.0, "full": 100.0}
  tried = []

  def step_bytes(made):
    (policy,) = set(experiment.remat_policies(made.config).values())
    tried.append(policy)
    return sizes[policy]

  monkeypatch.setattr(remat, "step_bytes", step_bytes)
  return tried


@pytest.mark.parametrize(
  "free, policy, tries",
  [
    (1000.0, "none", 1),
    (300.0, "dots", 2),  # A tenth is left free.
    (120.0, "full", 3),
    (10.0, "full", 3),  # Trains, and runs out of memory, or not.
    (0.0, "none", 1),  # Not known.
  ],
)
def test_the_first_policy_that_fits_is_taken(
  free, policy, tries, needed, resolve, monkeypatch
):
  monkeypatch.setattr(remat.memory, "free_bytes", lambda device: free)
  made, said = remat.prepare(resolve("pretrain", _auto))
  policies = experiment.remat_policies(made.config)
  assert set(policies.values()) == {policy}
  assert needed == list(remat.ORDER[:tries])
  assert said.startswith(f"remat {policy}: none needs")


def test_all_processes_go_by_the_one_that_has_least(
  needed, resolve, monkeypatch
):
  monkeypatch.setattr(remat.memory, "free_bytes", lambda device: 1000.0)
  made, _ = remat.prepare(resolve("pretrain", _auto), lambda free: free / 4)
  assert set(experiment.remat_policies(made.config).values()) == {"dots"}


def test_a_policy_that_is_said_stays(needed, resolve):
  def edit(c):
    _auto(c)
    c.model.encoders.image.stack = dict(remat="full")

  config = resolve("pretrain", edit)
  chosen = experiment.with_remat(config, "dots", only=remat.AUTO)
  policies = experiment.remat_policies(chosen)
  assert policies.pop("image") == "full"
  assert set(policies.values()) == {"dots"}
  assert remat.prepare(resolve("pretrain"))[1] == "" and not needed


def test_less_is_kept_the_more_is_computed_again(resolve):
  config = resolve("pretrain", _auto)
  sizes = [
    remat.step_bytes(
      experiment.prepare(
        experiment.with_remat(config, policy, only=remat.AUTO),
        jax.devices()[:1],
      )
    )
    for policy in ("none", "full")
  ]
  assert math.inf > sizes[0] > sizes[1]


def _auto(c):
  for part in (*c.model.encoders.values(), c.model.fusion):
    part.stack = dict(remat="auto")


def _compiled(compile_, devices=1, platform="gpu"):
  """An experiment whose step is compiled by a function."""
  device = types.SimpleNamespace(platform=platform)
  made = mock.Mock(spec=experiment.Experiment)
  made.lower_step = lambda: types.SimpleNamespace(compile=compile_)
  made.mesh = types.SimpleNamespace(local_devices=[device] * devices)
  return made


@pytest.mark.parametrize(
  "platform, devices, times", [("gpu", 2, 1), ("cpu", 1, 1), ("cpu", 8, 8)]
)
def test_a_step_needs_its_arguments_results_and_what_is_between(
  platform, devices, times
):
  stats = types.SimpleNamespace(
    argument_size_in_bytes=1000,
    output_size_in_bytes=700,
    alias_size_in_bytes=600,  # Results in the place of arguments.
    temp_size_in_bytes=50,
  )
  program = types.SimpleNamespace(memory_analysis=lambda: stats)
  made = _compiled(lambda: program, devices, platform)
  # Devices that a CPU pretends share its memory.
  assert remat.step_bytes(made) == times * (1000 + (700 - 600) + 50)


def test_what_the_compiler_refuses_for_its_size_never_fits():
  def fail(message):
    raise jax.errors.JaxRuntimeError(message)

  too_large = _compiled(lambda: fail("RESOURCE_EXHAUSTED: 99 GiB"))
  assert remat.step_bytes(too_large) == math.inf
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    remat.step_bytes(_compiled(lambda: fail("INTERNAL: broken")))
