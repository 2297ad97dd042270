import types
from unittest import mock

import ml_collections as mlc
import pytest

from mmjax.bench import generation
from mmjax.build import settings
from mmjax.build.generation import Generator
from mmjax.core import errors
from mmjax.generate.settings import GenerationSettings

TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
CONTEXT, TOKENS = 12, 6


@pytest.fixture(scope="module")
def config():
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=16), text=dict(max_tokens=CONTEXT)
  )
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=8, size=TOWER)),
    decoders=dict(text=dict(name="text", size=TOWER)),
  )
  c.tasks = dict(main=dict(objectives=dict(caption=dict(name="captioning"))))
  c.train = dict(batch_size=8)
  return settings.resolve(c)


def _run(config, **changes):
  options = dict(rows=[1, 2], prompt_tokens=4, num_rounds=2)
  how = GenerationSettings(max_tokens=changes.pop("max_tokens", TOKENS))
  return generation.run(config, how, **(options | changes))


def test_texts_have_their_full_length_and_compile_once(config, monkeypatch):
  said = []
  tokens = Generator.tokens

  def listen(self, *args):
    found = tokens(self, *args)
    said.extend(len(ids) for (ids,) in found)
    return found

  monkeypatch.setattr(Generator, "tokens", listen)
  found = _run(config)

  assert said == [TOKENS] * 3 * 3  # 1 + 2 texts, warmed up and twice.
  assert found["compilations"] == 0  # Prompts of 4 and of 3 tokens.
  assert [row["rows"] for row in found["rows"]] == [1, 2]
  text = generation.describe(found)
  assert "tokens/s, all" in text and "in the same bucket: 0" in text


def test_speed_is_that_of_all_texts_from_beginning_to_end():
  found = generation.figures(4, [(0.5, 2.0), (0.5, 1.0), (0.25, 4.0)], 8)
  assert found["tokens_per_sec"] == dict(median=16.0, least=8.0, most=32.0)
  assert found["first_token_secs"]["median"] == 0.5


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(rows=[]), "rows=0, expected at least 1"),
    (dict(num_rounds=0), "rounds=0"),
    (dict(max_tokens=1), "max_tokens - 1=0"),
    (dict(max_tokens=9), "of 4 tokens and 9 to say are 13, of 12"),
  ],
)
def test_what_cannot_be_measured_is_refused(config, changes, message):
  with pytest.raises(errors.UserError, match=message):
    _run(config, **changes)


def test_times_are_of_the_first_token_and_of_whole_texts(monkeypatch):
  now = [0.0]
  clock = types.SimpleNamespace(perf_counter=lambda: now[0])

  def spend(secs):
    now[0] += secs

  def stream(variables, batch, *, chunk):
    spend(1.0 * chunk)
    yield ["a"]
    spend(90.0)

  generator = mock.Mock(spec=Generator)
  generator.stream = stream
  generator.tokens = lambda variables, batch: spend(4.0)
  monkeypatch.setattr(generation, "time", clock)
  monkeypatch.setattr(generation, "_batch", lambda *args: spend(30.0))
  assert generation.sample(generator, {}, 2, 3) == (1.0, 4.0)
