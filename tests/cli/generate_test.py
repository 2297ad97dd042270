"""`mmjax generate` on a model with random parameters: nothing is trained."""

import textwrap

import jax
import numpy as np
import pytest

from mmjax.build import experiment, initial, settings, workdirs
from mmjax.core import config as config_lib
from mmjax.core import trees
from mmjax.data import sources
from mmjax.train import checkpoint

LANGUAGE = """
  tower = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
  c.data = dict(
    source="synthetic",
    image=dict(size=16),
    text=dict(max_tokens=8, field="question"),
    question=dict(templates=(("what shape?", "group"),)),
    answer=dict(field="answer_text", max_tokens=8),
    label=dict(field="group"),
  )
  c.model.encoders = dict(
    image=dict(name="vit", patch_size=8, size=tower),
    text=dict(name="text", size=tower),
  )
  c.model.fusion = dict(name="joint", size=tower)
  c.model.decoders = dict(answer=dict(name="text", size=tower))
  c.tasks = dict(
    main=dict(
      objectives=dict(
        say=dict(name="vqa", generate=True),
        caption=dict(name="captioning", text="answer", head="caption"),
        pick=dict(name="vqa", head="pick"),
      )
    )
  )
  c.finetune = {}
"""


@pytest.fixture(scope="session")
def workdir_of(tmp_path_factory):
  """`workdir_of(config)`: a run of it whose parameters are drawn."""

  def make(config):
    config = settings.resolve(config)
    made = experiment.prepare(config)
    rng = np.random.default_rng(0)

    def draw(name, leaf):
      if name == "rng":
        return jax.random.key(0)
      values = 0.4 * rng.normal(size=leaf.shape) + name.endswith("scale")
      return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    state = trees.map_names(draw, made.abstract_state)
    workdir = tmp_path_factory.mktemp("run") / "W"
    workdirs.claim(workdir, config)
    saver = checkpoint.Checkpointer(workdir / "checkpoints")
    saver.save(1, state, initial.checkpoint_meta(config, made, state, 1))
    saver.close()
    return workdir

  return make


@pytest.fixture(scope="module")
def workdir(workdir_of, tiny, tmp_path_factory):
  file = tmp_path_factory.mktemp("config") / "language.py"
  address = tiny("finetune").partition("=")[2]
  file.write_text(
    "from mmjax.core import config as config_lib\n\n"
    "def get_config():\n"
    f"  c = config_lib.load({address!r})\n"
    f"{textwrap.indent(textwrap.dedent(LANGUAGE), '  ')}\n"
    "  return c\n"
  )
  return workdir_of(config_lib.load(str(file)))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
  file = tmp_path_factory.mktemp("picture") / "shape.png"
  file.write_bytes(sources.open_source("synthetic", split="test")[0]["image"])
  return file


@pytest.fixture
def said(mmjax, workdir, picture):
  """`said(*flags)`: what is printed about the picture."""

  def run(*flags):
    result = mmjax(
      "generate", f"--workdir={workdir}", f"--image={picture}", *flags
    )
    assert result.status == 0, result.err
    return result.out

  return run


def test_a_caption_goes_on_with_the_prompt(said):
  out = said("--objective=caption", "--prompt=a red", "--max_tokens=3")

  assert out.startswith("a red") and len(out) > len("a red\n")


def test_a_model_that_picks_shows_the_likely_classes(said):
  out = said("--objective=pick", "--prompt=what shape?")

  rows = [line.split() for line in out.splitlines()]
  shares = [float(share.rstrip("%")) for share, _ in rows]
  assert shares == sorted(shares, reverse=True)
  assert sum(shares) == pytest.approx(100, abs=0.3)
  assert {name for _, name in rows} == set(
    "circle diamond square triangle".split()
  )


def test_answers_are_weighed_against_each_other(said):
  out = said(
    "--objective=say", "--prompt=what shape?", "--answers=circle, red square"
  )

  rows = [line.strip().split(maxsplit=1) for line in out.splitlines()]
  assert {name for _, name in rows} == {"circle", "red square"}
  shares = [float(share.rstrip("%")) for share, _ in rows]
  assert sum(shares) == pytest.approx(100, abs=0.2)


def test_the_same_seed_draws_the_same_texts(said):
  flags = ("--objective=caption", "--strategy=sample", "--num=2")

  one = said(*flags, "--seed=1")

  assert one == said(*flags, "--seed=1") != said(*flags, "--seed=2")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (("--strategy=gredy",), "Unknown strategy 'gredy'. Did you mean 'greedy'"),
    (("--strategy=sample", "--top_p=2"), r"top_p=2.0, expected (0, 1]"),
    (("--temperature=0.5",), "changes nothing with strategy='greedy'"),
    (("--promt=x",), "Did you mean '--prompt'"),
    (("--num=3",), "num=3: there is one answer only"),
    (("--image={config}",), "not a picture that Pillow reads"),
    (("--objective=say",), "it must not be empty"),
    (("--prompt=" + "red " * 9,), "Give a shorter prompt"),
    (("--objective=pick", "--prompt=a?", "--answers=sqare"), "'square'"),
    (("--objective=",), "Name one as 'objective'"),
  ],
)
def test_bad_input_is_refused(refused, workdir, picture, flags, message):
  given = ["--objective=caption", f"--image={picture}"]
  flags = [flag.format(config=workdir / "config.json") for flag in flags]

  assert message in refused("generate", f"--workdir={workdir}", *given, *flags)


def test_a_model_without_a_decoder_says_what_it_can_do(
  refused, workdir_of, tiny, picture
):
  config = config_lib.load(tiny("pretrain").partition("=")[2])
  workdir = workdir_of(config)

  message = refused("generate", f"--workdir={workdir}", f"--image={picture}")

  assert "no decoder" in message
  assert "compare what it reads" in message
