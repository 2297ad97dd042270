import numpy as np
import pytest

from mmjax.data import pipeline
from mmjax.data.transforms import image, patches, second, sides, video

PIXELS = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)


@pytest.mark.parametrize(
  "text",
  [
    "a cat to the LEFT of a dog",
    "rightmost",
    "on_left",
    "left-hand drive",
    "it turns counterclockwise",
    "猫在狗的左边",
    "右を向く",
    "der Hund ist links",
    "à gauche",
    "a la izquierda",
    "кот слева",
  ],
)
def test_words_of_sides_are_found(text):
  assert sides.tells_sides({"n": 3, "text": text}, sides.WORDS)
  assert sides.tells_sides({"captions": ("a cat", text)}, sides.WORDS)


@pytest.mark.parametrize(
  "text", ["a bright light", "upright", "cleft", "猫", "", "clock", "copyright"]
)
def test_other_words_are_not(text):
  assert not sides.tells_sides({"text": text, "image": b"left"}, sides.WORDS)


def test_words_may_be_given():
  assert not sides.tells_sides({"text": "left"}, ())
  assert not sides.tells_sides({"text": "left"}, ("port",))
  assert sides.tells_sides({"text": "on the port side"}, ("port", "star.*"))
  assert not sides.tells_sides({"text": "starboard"}, ("star.*",))


MADE = {
  "image": image.ImageTransform(size=4, crop_scale=(1.0, 1.0), flip=True),
  "image_second": second.SecondView(
    size=4, crop_scale=(1.0, 1.0), flip=True, field="other"
  ),
  "video": video.VideoTransform(
    size=4, num_frames=2, crop_scale=(1.0, 1.0), flip=True
  ),
}


@pytest.mark.parametrize("name", MADE)
def test_only_pictures_whose_texts_tell_no_sides_are_flipped(name):
  source = {"image": PIXELS, "other": PIXELS, "clip": np.stack([PIXELS] * 2)}
  seen = {}
  for text in ("a red hat", "a hat, left of a cat"):
    views = {
      MADE[name](
        {**source, "text": text}, np.random.default_rng(i), train=True
      )[name].tobytes()
      for i in range(30)
    }
    seen[text] = views
  whole = np.broadcast_to(PIXELS, MADE[name].specs()[name].shape)
  flipped = whole[..., ::-1, :]
  assert seen["a red hat"] == {whole.tobytes(), flipped.tobytes()}
  assert seen["a hat, left of a cat"] == {whole.tobytes()}


def test_bags_of_patches_are_flipped_likewise():
  transform = patches.PatchTransform(
    patch_size=4,
    max_patches=1,
    upscale=True,
    image=image.ImageTransform(
      crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True
    ),
  )
  for text, count in (("hat", 2), ("left", 1)):
    views = {
      transform(
        {"image": PIXELS, "text": text}, np.random.default_rng(i), train=True
      )["image"].tobytes()
      for i in range(30)
    }
    assert len(views) == count


def test_pictures_of_a_conversation_are_flipped_likewise():
  from mmjax.data import chat
  from mmjax.data.tokenizer import TextTokenizer
  from mmjax.data.transforms import conversation

  transform = conversation.ConversationTransform(
    tokenizer=TextTokenizer.load("starter").with_chat(),
    max_tokens=40,
    patch_size=4,
    image=image.ImageTransform(size=4, crop_scale=(1.0, 1.0), flip=True),
  )
  for text, count in (("a hat", 2), ("it looks right", 1)):
    asked = chat.Message("user", (chat.Picture(PIXELS), "what is it?"))
    messages = (asked, chat.Message("assistant", (text,)))
    views = {
      transform({"messages": messages}, np.random.default_rng(i), train=True)[
        "images"
      ].tobytes()
      for i in range(20)
    }
    assert len(views) == count


class Clips:
  """A source whose caption has the name of the field that it becomes."""

  def __init__(self, *, split, path):
    self.clip = np.stack([PIXELS] * 2)

  def __len__(self):
    return 40

  def __getitem__(self, index, /):
    return {"clip": self.clip, "text": "to the left" if index % 2 else "hat"}


def test_texts_are_read_before_they_become_tokens(monkeypatch):
  from mmjax.data import sources

  monkeypatch.setitem(sources.SOURCES, "clips", Clips)
  made = pipeline.build_pipeline(
    dict(
      source="clips",
      video=dict(size=4, num_frames=2, crop_scale=(1.0, 1.0), flip=True),
      text=dict(max_tokens=8),
    )
  )
  flipped = [
    np.any(made.example(i, 0, 0, True)["video"] != made.source.clip)
    for i in range(40)
  ]
  assert not any(flipped[1::2])
  assert 4 < sum(flipped[::2]) < 16
