"""Chat and packing on a tiny model, random or trained for nothing."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from mmjax.build import chat, experiment, parts, settings
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.data import loader
from mmjax.data.pipeline import build_pipeline
from mmjax.generate.settings import GenerationSettings

CONFIG = Path(__file__).parents[2] / "configs/finetune/chat.py:tiny"


def _config():
  config = config_lib.load(str(CONFIG))
  config.model.precision = "float32"
  return settings.resolve(config)


@pytest.fixture(scope="module")
def made():
  """The experiment on one device, and random variables of its model."""
  made = experiment.prepare(_config(), jax.devices()[:1])
  boxed = jax.eval_shape(
    lambda: experiment.init_variables(
      jax.random.key(0), parts=made.parts, batch_size=2
    )
  )
  rng = np.random.default_rng(0)

  def draw(name, leaf):
    centre = 1.0 if name.endswith("scale") else 0.0
    values = centre + 0.3 * rng.normal(size=leaf.shape)
    if name.startswith("params/heads"):  # No token that is always likely.
      values = 0.0 * values if name.endswith("bias") else values
    return values.astype(np.float32)

  return made, trees.map_names(draw, nn.meta.unbox(boxed))


@pytest.fixture(scope="module")
def loss(made):
  """`loss(batch)`: sum over the tokens that count, and their number."""
  made, variables = made
  objective = made.parts.objectives["chat"].objective

  def fn(apply, batch):
    return objective(apply, batch, rng=jax.random.key(0), train=False)[0]

  def run(batch):
    term = made.predictor(variables, fn, batch)
    return float(term.total), float(term.weight)

  return run


def _data(**changes):
  data = _config().data.to_dict()
  data["conversation"].update(changes)
  return build_pipeline(data)


def test_packed_conversations_have_the_loss_of_single_ones(loss):
  packed, single = _data(), _data(pack=False)
  rows = packed.source.rows[:4]
  assert max(map(len, rows)) > 1
  total, weight = loss(next(loader.eval_batches(packed, batch_size=4)))
  which = [i for row in rows for i in row]
  examples = [single.example(i, 0, 0, False) for i in which]
  sums = []
  for example in examples:  # One at a time, so that one program does.
    batch = {k: np.stack([example[k]] * 4) for k in single.specs}
    batch["example_mask"] = np.arange(4) < 1
    sums.append(loss(batch))
  np.testing.assert_allclose(total, sum(t for t, _ in sums), rtol=1e-5)
  assert weight == sum(w for _, w in sums)


def test_the_order_of_rows_is_that_of_the_seed_also_after_a_break():
  data = _data()
  first = loader.train_batches(data, batch_size=4, seed=3, num_threads=0)
  batches = [next(first) for _ in range(4)]
  again = loader.train_batches(
    _data(), batch_size=4, seed=3, start_step=2, num_threads=0
  )
  for want in batches[2:]:
    got = next(again)
    assert set(got) == set(want)
    for name in got:
      np.testing.assert_array_equal(got[name], want[name])


@pytest.fixture
def picture(tmp_path):
  """`picture(name)`: a file with noise of its own."""

  def make(name):
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    return str(tmp_path / name)

  return make


@pytest.fixture(scope="module")
def talk(made):
  return chat.Chat(*made, GenerationSettings(max_tokens=5))


def _logits(apply, batch):
  del batch
  decoded = apply("decode", "text", ("images",), "conversation")
  return apply("head", "lm", decoded.content)


def _greedy(made, fields, num):
  """The most likely tokens, each from a forward pass over all before it."""
  made, variables = made
  eos = 2
  said: list[int] = []
  first = None

  ids, places = fields["prompt"][0], fields["prompt_places"][0]
  size = len(ids) + num
  while len(said) < num and eos not in said:
    text = np.zeros((1, size), np.int32)
    text[0, : len(ids) + len(said)] = [*ids, *said]
    batch = {
      "text": text,
      "text_mask": np.arange(size)[None] < len(ids) + len(said),
      "text_places": np.pad(places, (0, num), constant_values=-1)[None],
      "images": fields["images"],
      "images_mask": fields["images_mask"],
    }
    at = len(ids) + len(said) - 1
    logits = np.array(made.predictor(variables, _logits, batch)[0, at])
    logits[[0, 1, 3]] = -np.inf  # Never said: padding, begin, mask.
    said.append(int(np.argmax(logits)))
    first = logits[4:] if first is None else first
  return said, first


def test_a_reply_with_pictures_is_what_the_model_says_without_a_cache(
  made, talk, picture
):
  talk.reset()
  talk.show(picture("a.png"))
  list(talk.ask("What is this?"))
  talk.show(picture("other.png"))
  pieces = talk.ask("And this?")
  tokens, _ = talk._transform.prompt(talk._history, 80)
  fields = talk._batch(tokens)
  assert len(tokens.pictures) == 2
  said, first = _greedy(made, fields, 5)
  assert len(set(said)) > 1
  tokenizer = made[0].parts.pipelines["pictures"].tokenizer
  assert "".join(pieces) == tokenizer.decode(said)
  # They are looked at, in their order.
  fields["images"] = fields["images"][:, ::-1]
  assert np.abs(_greedy(made, fields, 5)[1] - first).max() > 1e-2


def test_what_was_said_and_shown_is_remembered_until_it_no_longer_fits(
  talk, picture
):
  talk.reset()
  talk.show(picture("a.png"))
  whole = "".join(talk.ask("What is this?"))
  assert [m.role for m in talk._history] == ["user", "assistant"]
  assert talk._history[1].parts == (whole,)
  # A reply that is stopped is kept as far as it came.
  pieces = talk.ask("And now?")
  pieces.close()
  assert len(talk._history) == 3
  pieces = talk.ask("And now?")
  first = next(pieces)
  pieces.close()
  assert talk._history[-1].parts == (first,)
  while not talk.left_out:
    list(talk.ask("one two three four five six seven eight"))
  assert talk._history[0].role == "user"
  talk.reset()
  assert talk._history == [] and talk.left_out == 0


def test_what_cannot_be_asked_or_shown_is_said(talk, picture, tmp_path):
  talk.reset()
  with pytest.raises(errors.UserError, match="Nothing is asked"):
    talk.ask(" ")
  with pytest.raises(errors.UserError, match="last message alone"):
    talk.ask("so " * 100)
  with pytest.raises(errors.UserError, match="No such file"):
    talk.show(str(tmp_path / "nothing.png"))
  (tmp_path / "text.png").write_text("no picture")
  with pytest.raises(errors.UserError, match="not a picture"):
    talk.show(str(tmp_path / "text.png"))
  assert talk._history == []
  for _ in range(2):
    talk.show(picture("a.png"))
  with pytest.raises(errors.UserError, match="2 pictures at a time"):
    talk.show(picture("a.png"))


def test_replies_have_to_leave_room_for_questions(made):
  with pytest.raises(errors.UserError, match="max_tokens=90 for a reply"):
    chat.Chat(*made, GenerationSettings(max_tokens=90))


def test_a_model_that_has_not_learned_to_chat_says_so(resolve):
  other = experiment.prepare(resolve("tokenizer"))
  with pytest.raises(errors.UserError, match="not learned to chat.*Tokenizer"):
    chat.find_conversation(other)


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    (("model.encoders.image", "patch_size", 16), "a grid of 2x2.*is 4x4"),
    (("data.conversation", "max_token", 99), "Did you mean 'max_tokens'"),
    (("data.conversation.image", "sze", 9), "Did you mean 'size'"),
    (("data.conversation", "max_tokens", 99), None),
    (("data", "text", {"field": "id"}), "set config.data.text and"),
  ],
)
def test_a_config_that_does_not_fit_is_refused(change, problem):
  config = config_lib.load(str(CONFIG))
  path, key, value = change
  node = config
  for part in path.split("."):
    node = node[part]
  config.data.conversation.pack = False
  with config.unlocked():
    node[key] = value
  if problem is None:
    assert parts.make_parts(settings.resolve(config)).info.vocab_size == 2048
    return
  with pytest.raises(errors.UserError, match=problem):
    parts.make_parts(settings.resolve(config))
