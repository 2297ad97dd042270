"""Vectors of inputs, against plain calls of the model on hand-made batches."""

import functools
import io
import json

import jax
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.build import (
  embedding,
  embedding_file,
  embedding_inputs,
  embedding_run,
  experiment,
)
from mmjax.core import errors, trees
from mmjax.data import sources

TOWER = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
SIZE, RATE, SAMPLES = 16, 8000, 1600
TOKENS = 8


def _every_modality(config):
  config.data = dict(
    source="synthetic",
    image=dict(size=SIZE),
    text=dict(max_tokens=TOKENS),
    video=dict(size=SIZE, num_frames=2, short="loop"),
    audio=dict(sample_rate=RATE, max_secs=SAMPLES / RATE),
    label=dict(field="group"),
    optional=("audio", "video"),  # The source has none.
  )
  config.model = dict(
    precision="float32",
    shared_dim=8,
    encoders=dict(
      image=dict(name="vit", patch_size=8, size=TOWER, pool="cls", registers=1),
      text=dict(name="text", size=TOWER),
      video=dict(name="video", patch_size=8, size=TOWER),
      audio=dict(
        name="audio", size=TOWER, patch_size=(4, 8), log_mel=dict(num_mels=8)
      ),
    ),
  )
  objectives = dict(
    align=dict(name="contrastive", modalities=("image", "text", "video")),
    sound=dict(name="classification", modality="audio"),
  )
  config.tasks = dict(main=dict(objectives=objectives))
  config.finetune = {}


def _texts_in_rows(config):
  config.data = dict(
    source="synthetic",
    text=dict(max_tokens=32, pack=True, mask=dict(rate=0.3)),
  )
  config.model = dict(
    precision="float32",
    encoders=dict(text=dict(name="text", size=TOWER, pool="map")),
    fusion=dict(name="joint", size=TOWER),
  )
  objectives = dict(mlm=dict(name="masked_lm", given=()))
  config.tasks = dict(main=dict(objectives=objectives))
  config.finetune = {}


def _drawn(made):
  rng = np.random.default_rng(0)

  def draw(name, leaf):
    values = 0.4 * rng.normal(size=leaf.shape) + name.endswith("scale")
    return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

  return {"params": trees.map_names(draw, made.abstract_state.params)}


@pytest.fixture(scope="module")
def trained(resolve):
  made = experiment.prepare(resolve("finetune", _every_modality))
  return made, _drawn(made)


@pytest.fixture(scope="module")
def make(trained):
  """`make(**settings)`: an embedder, made once for each."""

  @functools.cache
  def made(**settings):
    settings = embedding.EmbedSettings(**{"batch_size": 8} | settings)
    return embedding.Embedder(*trained, settings)

  return made


@pytest.fixture(scope="module")
def expected(trained):
  """`expected(method, modality, batch)`: of one device, without a mesh."""
  model = trained[0].parts.model
  variables = jax.tree.map(np.asarray, trained[1])

  @functools.partial(jax.jit, static_argnames=("method", "modality"))
  def run(variables, method, modality, batch):
    mask = batch.get(f"{modality}_mask")
    sequence = model.apply(
      variables,
      modality,
      batch[modality],
      mask=mask,
      train=False,
      method="encode",
    )
    if method == "encode":
      return sequence.x, sequence.mask
    return model.apply(variables, modality, sequence, method=method)

  def call(method, modality, batch):
    return jax.tree.map(np.asarray, run(variables, method, modality, batch))

  return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """11 pictures, recordings of growing length, and lines that name them."""
  folder = tmp_path_factory.mktemp("inputs")
  (folder / "media").mkdir()
  source = sources.open_source("synthetic", split="test")
  rows = []
  for i in range(11):
    (folder / f"media/{i}.png").write_bytes(source[i]["image"])
    soundfile.write(folder / f"media/{i}.wav", _tone(i), RATE, subtype="FLOAT")
    rows.append(
      dict(
        text=source[i]["label_en"],
        image=f"media/{i}.png",
        video=f"media/{i}.png",
        audio=f"media/{i}.wav",
        id=f"row-{i}",
      )
    )
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return folder


def _tone(i):
  return 0.5 * np.sin(np.arange(400 + 100 * i) / (5 + i)).astype(np.float32)


def _by_hand(folder, tokenizer):
  """The fields of all rows, as a user would make them."""
  lines = (folder / "rows.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  pictures = [
    Image.open(folder / row["image"]).resize(
      (SIZE, SIZE), Image.Resampling.BILINEAR
    )
    for row in rows
  ]
  image = np.stack([np.asarray(p) for p in pictures])
  text = np.stack([tokenizer.encode(row["text"], TOKENS) for row in rows])
  audio = np.zeros((len(rows), SAMPLES), np.float32)
  for i, row in enumerate(audio):
    row[: len(_tone(i))] = _tone(i)
  length = np.array([len(_tone(i)) for i in range(len(rows))])
  return dict(
    image=image,
    text=text,
    text_mask=text != tokenizer.pad_id,
    video=np.stack([image, image], axis=1),
    audio=audio,
    audio_mask=np.arange(SAMPLES) < length[:, None],
  )


def _embed(embedder, path, out, only=(), skip=False):
  skipped = embedding_inputs.Skipped(skip)
  given = embedding_inputs.open_inputs(str(path), only, skipped)
  embedder.check(given.modalities)
  with embedding_file.writing(out) as table:
    summary = embedding_run.embed_all(
      embedder, given, skipped, table, lambda done, total: None
    )
  with np.load(out, allow_pickle=False) as file:
    return dict(file), summary, skipped


@pytest.mark.parametrize(
  ("method", "pool", "only"),
  [
    ("project", "", ("image", "text", "video")),
    ("pool", "pooled", ("audio", "text")),
  ],
)
def test_rows_are_what_the_model_says_of_hand_made_batches(
  make, trained, expected, folder, tmp_path, method, pool, only
):
  tokenizer = trained[0].parts.pipelines["main"].tokenizer
  batch = _by_hand(folder, tokenizer)

  found, summary, _ = _embed(
    make(pool=pool), folder / "rows.jsonl", tmp_path / "e.npz", only
  )

  assert set(found) == {"ids", *only}
  assert found["ids"].tolist() == [f"row-{i}" for i in range(11)]
  assert summary.num_rows == 11  # 8 and 3, of batches of 8.
  for name in only:
    assert found[name].dtype == np.float32
    np.testing.assert_allclose(
      found[name], expected(method, name, batch), rtol=1e-4, atol=1e-5
    )


def test_other_pools_are_taken_from_the_tokens(make, trained, expected):
  tokenizer = trained[0].parts.pipelines["main"].tokenizer
  fields = [make().fields("text", t) for t in ("red", "a very blue square")]
  ids = np.stack([f["text"] for f in fields])
  mask = ids != tokenizer.pad_id
  x, _ = expected("encode", "text", dict(text=ids, text_mask=mask))
  weights = mask[:, :, None].astype(np.float32)

  mean = make(pool="mean")("text", fields)["text"]
  first = make(pool="first")("text", fields)["text"]
  tokens = make(pool="tokens", normalize=True)("text", fields)

  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  close(mean, (x * weights).sum(1) / weights.sum(1))
  close(first, x[:, 0])
  close(tokens["text"], x / np.linalg.norm(x, axis=2, keepdims=True))
  np.testing.assert_array_equal(tokens["text_mask"], mask)


def test_the_first_token_is_the_class_token_not_a_register(
  make, expected, folder
):
  content = (folder / "media/0.png").read_bytes()
  fields = make().fields("image", content)

  found = make(pool="first")("image", [fields])["image"]

  pooled = expected("pool", "image", {"image": fields["image"][None]})
  np.testing.assert_allclose(found, pooled, rtol=1e-4, atol=1e-5)


def test_what_rows_lack_is_zero_and_said(make, folder, tmp_path):
  lines = [{"text": f"t{i}"} for i in range(9)]
  lines += [{"image": "media/3.png", "text": ""}, {"id": 7, "text": "red"}]
  path = folder / "some.jsonl"
  path.write_text("\n\n".join(map(json.dumps, lines)))

  found, summary, _ = _embed(make(), path, tmp_path / "e.npz")

  there = [False] * 9 + [True, False]
  assert found["image_present"].tolist() == there
  assert found["text_present"].tolist() == [not x for x in there]
  assert summary.present == {"image": 1, "text": 10}
  for name in ("image", "text"):
    lengths = np.linalg.norm(found[name], axis=1)
    np.testing.assert_allclose(lengths, found[f"{name}_present"], atol=1e-5)
  # Lines are counted with blank ones.
  assert found["ids"].tolist() == [str(1 + 2 * i) for i in range(10)] + ["7"]


def test_what_cannot_be_used_is_left_out_if_asked(make, folder, tmp_path):
  path = folder / "bad.jsonl"
  (folder / "broken.png").write_bytes(b"nothing")
  good = '{"text": "red", "id": "good"}'
  bad = ["[1]", "{", '{"txt": "x"}', '{"image": "none.png"}', '{"text": 3}']
  late = ['{"image": "broken.png"}'] * 8  # A whole batch.
  path.write_text("\n".join([*bad, *late, good]))

  found, _, skipped = _embed(make(), path, tmp_path / "e.npz", skip=True)

  assert found["ids"].tolist() == ["good"]
  assert skipped.count == 13
  for number, what in enumerate(
    ["a list, not an object", "Expecting", "Did you mean 'text'", "no file at"],
    1,
  ):
    assert f"line {number} of" in skipped.first[number - 1]
    assert what in skipped.first[number - 1]
  with pytest.raises(errors.UserError, match="line 1 of .*--skip_bad"):
    _embed(make(), path, tmp_path / "f.npz")
  path.write_text("\n".join(late))
  with pytest.raises(errors.UserError, match="None of the 8 inputs"):
    _embed(make(), path, tmp_path / "f.npz", skip=True)
  assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_a_folder_is_read_by_endings(make, folder, tmp_path):
  (folder / "media/notes.md").write_text("x")
  file = io.BytesIO()
  Image.new("RGB", (20, 20), "red").save(file, "GIF")
  (folder / "media/z.gif").write_bytes(file.getvalue())

  found, _, _ = _embed(make(), folder / "media", tmp_path / "e.npz", ["image"])
  given = embedding_inputs.Folder(str(folder / "media"), ["video"])

  names = sorted([*(f"{i}.png" for i in range(11)), "z.gif"])
  assert found["paths"].tolist() == names
  assert found["image"].shape == (12, 8)
  # A GIF is a clip where no pictures are wanted.
  assert (given.ids, given.num_others) == (["z.gif"], 23)


def test_a_text_that_is_longer_than_what_is_read_is_counted(
  make, folder, tmp_path
):
  path = folder / "long.jsonl"
  tokenizer = make().fields  # Six tokens between begin and end fit.
  assert tokenizer("text", "a b c d e f")["text_mask"].all()
  texts = ["a b c d e f", "a b c d e f g", "a " * 9999]
  path.write_text("\n".join(json.dumps({"text": t}) for t in texts))

  _, summary, _ = _embed(make(), path, tmp_path / "e.npz")

  assert summary.num_cut == 2


def test_what_the_model_does_not_offer_is_refused(make):
  with pytest.raises(errors.UserError, match=r"'audio'\. Known: \['pooled'"):
    make().check(["audio"])
  with pytest.raises(errors.UserError, match="Did you mean 'shared'"):
    embedding.EmbedSettings(pool="share")
  with pytest.raises(errors.UserError, match="batch_size=0"):
    embedding.EmbedSettings(batch_size=0)
  with pytest.raises(errors.UserError, match="Unknown task 'man'"):
    make(task="man")


def test_a_model_of_packed_rows_embeds_one_text_at_a_time(resolve):
  made = experiment.prepare(resolve("finetune", _texts_in_rows))
  variables = _drawn(made)
  settings = embedding.EmbedSettings(pool="mean", batch_size=3)
  embed = embedding.Embedder(made, variables, settings)

  fields = embed.fields("text", "red")

  assert embed.batch_size == 8  # Of 8 devices each has a row.
  assert set(fields) == {"text", "text_mask"}
  assert embed.offered("text") == ["mean", "first", "tokens"]
  with pytest.raises(errors.UserError, match="no encoder of 'image'"):
    embed.check(["image"])
  with pytest.raises(errors.UserError, match="--pool=pooled: the model has"):
    embedding.Embedder(made, variables).check(["text"])


@pytest.mark.slow  # Compiles a program for each of three lengths.
def test_short_texts_are_computed_without_most_of_their_padding(
  resolve, monkeypatch
):
  def long(config):
    _texts_in_rows(config)
    config.data.text.max_tokens = 48
    config.model.encoders.text.pool = "mean"

  made = experiment.prepare(resolve("finetune", long))
  variables = _drawn(made)
  embed = embedding.Embedder(made, variables, embedding.EmbedSettings())
  seen, run = [], embed._predict

  def predict(variables, function, batch):
    seen.append({x.shape[1] for x in batch.values()})
    return run(variables, function, batch)

  monkeypatch.setattr(embed, "_predict", predict)
  # Tokens: a word each, begin and end.
  batches = [[1, 14], [15, 3], [30], [46, 2]]
  rows = [
    [embed.fields("text", " ".join(["a"] * n)) for n in sizes]
    for sizes in batches
  ]
  found = [embed("text", some)["text"] for some in rows]

  assert seen == [{16}, {32}, {32}, {48}]
  fields = [row for some in rows for row in some]
  ids, mask = (
    np.stack([f[name] for f in fields]) for name in ("text", "text_mask")
  )
  assert ids.shape == (len(fields), 48)
  encode = functools.partial(
    made.parts.model.apply, train=False, method="encode"
  )
  whole = jax.tree.map(np.asarray, variables)
  x = jax.jit(lambda v, ids, mask: encode(v, "text", ids, mask=mask).x)(
    whole, ids, mask
  )
  weights = mask[:, :, None].astype(np.float32)
  expected = (x * weights).sum(1) / weights.sum(1)
  np.testing.assert_allclose(
    np.concatenate(found), expected, rtol=1e-5, atol=1e-6
  )


def test_a_column_that_begins_late_is_zeros_before(tmp_path):
  out = tmp_path / "e.npz"
  with embedding_file.writing(out) as table:
    table.write("a", 2, np.ones((1, 2, 3), np.float32))
    table.write_texts("ids", ["é", "", "long id", "\ud800"])
    shapes = table.save(4)

  assert shapes == {"a": (4, 2, 3), "ids": (4,)}
  with np.load(out, allow_pickle=False) as file:
    assert file["a"].sum(axis=(1, 2)).tolist() == [0, 0, 6, 0]
    assert file["ids"].tolist() == ["é", "", "long id", "\ud800"]


def test_nothing_is_left_of_work_that_fails(tmp_path):
  out = tmp_path / "e.npz"
  out.write_bytes(b"old")
  with pytest.raises(RuntimeError):
    with embedding_file.writing(out) as table:
      table.write("a", 0, np.ones((1, 2)))
      raise RuntimeError

  assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
  assert out.read_bytes() == b"old"
