import textwrap

import pytest

from mmjax.build import parts, settings
from mmjax.core import errors


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
  """`plug_in(name, code)` writes a module of a user's own."""
  monkeypatch.syspath_prepend(tmp_path)

  def write(name, code):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))

  return write


def refused(resolve, stage, edit, match):
  with pytest.raises(errors.UserError, match=match):
    parts.make_parts(resolve(stage, edit))


def test_vocabulary_and_picture_size_come_from_the_data(resolve):
  made = parts.make_parts(resolve("pretrain"))

  assert made.info.vocab_size == made.pipelines["main"].tokenizer.vocab_size
  assert made.info.codebook_size == 16
  assert made.info.modalities == ("image", "text")
  assert made.model.visual_tokenizer.image_size == 32
  assert made.model.encoders["text"].stem.max_tokens == 12


def test_a_vocabulary_may_be_larger_than_the_tokenizer_not_smaller(resolve):
  def edit(config, size):
    config.model.vocab_size = size

  made = parts.make_parts(resolve("pretrain", lambda c: edit(c, 2176)))
  assert made.info.vocab_size == 2176
  assert made.model.encoders["text"].stem.vocab_size == 2176
  assert made.pipelines["main"].tokenizer.vocab_size == 2048
  match = "vocab_size=2000, but the tokenizer has 2048 tokens"
  refused(resolve, "pretrain", lambda c: edit(c, 2000), match)


def test_size_and_frames_of_clips_come_from_the_data(resolve, starter_path):
  def edit(config):
    config.data = dict(
      source="starter_clips",
      path=starter_path,
      video=dict(size=16, num_frames=8, mask=dict(patch_size=4)),
      label=dict(field="group"),
    )
    config.model.encoders = dict(
      video=dict(name="video", patch_size=4, size="Ti", factorised=True)
    )
    config.tasks.main.objectives.label.modality = "video"
    config.finetune.frozen = ()

  config = resolve("finetune", edit)
  assert config.data.video.short == "error"
  assert config.data.video.mask.strategy == "tube"
  made = parts.make_parts(config)

  assert made.model.encoders["video"].num_times == 4  # 8 frames by 2.
  specs = {n: str(s) for n, s in made.pipelines["main"].specs.items()}
  assert specs["video"] == "uint8[b, 8, 16, 16, 3]"
  assert specs["video_hidden"] == "int32[b, 56]"  # 4 x round(0.9 x 16).


def test_patches_of_pictures_of_any_shape_come_from_the_data(resolve):
  def edit(config, **encoder):
    config.data.image = dict(patches=dict(patch_size=8, max_patches=20))
    config.model.encoders.image.update(encoder)

  made = parts.make_parts(resolve("finetune", edit))

  specs = {n: str(s) for n, s in made.pipelines["main"].specs.items()}
  assert specs["image"] == "uint8[b, 20, 192]"
  assert specs["image_coordinates"] == "int32[b, 20, 2]"
  assert made.model.encoders["image"].stem.grid == (4, 4)  # 16 of the 20.
  refused(
    resolve,
    "finetune",
    lambda config: edit(config, patch_size=4),
    "patch_size=4, but config.data.image.patches cuts patches of 8",
  )


def test_a_mask_of_other_patches_than_the_encoders_is_refused(resolve):
  def edit(config):
    config.data.image.mask.patch_size = 16

  refused(resolve, "pretrain", edit, "a grid of 2x2; the encoder's is 4x4")


def test_number_of_classes_comes_from_the_data(resolve):
  made = parts.make_parts(resolve("finetune"))

  assert made.objectives["label"].objective.num_classes == 4  # Shapes.
  assert made.model.heads["label"].num_classes == 4


def test_a_fact_that_the_config_repeats_may_agree(resolve):
  def edit(config):
    config.tasks.main.objectives.label.num_classes = 4

  made = parts.make_parts(resolve("finetune", edit))

  assert made.objectives["label"].objective.num_classes == 4


def test_a_fact_that_disagrees_is_refused_with_both_values(resolve):
  def edit(config):
    config.model.encoders.image.image_size = 64

  refused(
    resolve,
    "finetune",
    edit,
    "config.model.encoders.image.image_size=64 but the data has 32",
  )


LABELLED = """
  import dataclasses
  import numpy as np
  from mmjax.core.batch import FieldSpec

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Parity:
    def specs(self):
      return {"label": FieldSpec((), "int32", "", "parity")}

    def __call__(self, example, rng, *, train):
      return {**example, "label": np.int32(len(example["label_en"]) % 2)}
"""


def test_labels_of_ones_own_need_a_number_of_classes_only(resolve, plug_in):
  plug_in("own_labels", LABELLED)

  def edit(config):
    config.data.label = None
    config.data.extra = ({"name": "own_labels:Parity"},)
    config.tasks.main.objectives.label.num_classes = 2

  made = parts.make_parts(resolve("finetune", edit))

  assert made.model.heads["label"].num_classes == 2


def test_labels_of_ones_own_without_a_number_of_classes_are_refused(
  resolve, plug_in
):
  plug_in("own_labels_too", LABELLED)

  def edit(config):
    config.data.label = None
    config.data.extra = ({"name": "own_labels_too:Parity"},)

  refused(resolve, "finetune", edit, "num_classes")


@pytest.mark.parametrize(
  ("stage", "section", "key", "near"),
  [
    ("pretrain", "tasks.main.objectives.mlm", "haed", "head"),
    ("pretrain", "tasks.main.objectives.mlm", "wieght", "weight"),
    ("pretrain", "model.encoders.image", "patchsize", "patch_size"),
    ("pretrain", "model.fusion", "stak", "stack"),
    ("pretrain", "model.visual_tokenizer", "codes", "num_codes"),
  ],
)
def test_unknown_key_of_a_plug_in_says_where_and_the_nearest(
  resolve, stage, section, key, near
):
  def edit(config):
    node = config
    for name in section.split("."):
      node = node[name]
    node[key] = 1

  refused(
    resolve,
    stage,
    edit,
    rf"'config.{section}.{key}'\. Did you mean '{near}'",
  )


def two_tasks(config):
  """Shapes and colours, each a task with labels of its own."""
  config.tasks = dict(
    shapes=dict(objectives=dict(shape=dict(name="classification"))),
    colors=dict(
      data=dict(label=dict(field="subgroup")),
      weight=0.5,
      objectives=dict(
        color=dict(name="classification", head="color", weight=3.0)
      ),
    ),
  )


def test_two_tasks_have_data_and_heads_of_their_own(resolve):
  made = parts.make_parts(resolve("finetune", two_tasks))

  sizes = {name: head.num_classes for name, head in made.model.heads.items()}
  assert sizes == {"label": 4, "color": 6}
  assert {n: o.task for n, o in made.objectives.items()} == {
    "shape": "shapes",
    "color": "colors",
  }


def test_weights_of_task_and_objective_multiply(resolve):
  made = parts.make_parts(resolve("finetune", two_tasks))

  assert made.objectives["color"].weight == 0.5 * 3.0


def test_different_heads_of_one_name_are_refused(resolve):
  def edit(config):
    two_tasks(config)
    config.tasks.colors.objectives.color.head = "label"

  refused(
    resolve,
    "finetune",
    edit,
    r"Two objectives bring a head 'label'.*\(of 'shape'\)",
  )


def test_equal_heads_of_one_name_are_shared(resolve):
  def edit(config):
    two_tasks(config)
    del config.tasks.colors.data
    config.tasks.colors.objectives.color.head = "label"

  assert list(parts.make_parts(resolve("finetune", edit)).model.heads) == [
    "label"
  ]


def test_an_objective_of_the_same_name_in_two_tasks_is_refused(resolve):
  def edit(config):
    config.tasks.more = config.tasks.main.to_dict()

  refused(resolve, "finetune", edit, "Two tasks have an objective 'label'")


def test_no_task_is_refused(resolve):
  def edit(config):
    config.tasks = {}

  refused(resolve, "finetune", edit, "config.tasks is empty")


def test_task_without_objectives_is_refused(resolve):
  def edit(config):
    config.tasks.more = {}

  refused(resolve, "finetune", edit, "config.tasks.more.objectives is empty")


def test_weights_that_are_all_zero_are_refused(resolve):
  def edit(config):
    config.tasks.main.objectives.label.weight = 0.0

  refused(resolve, "finetune", edit, "weights of all objectives are zero")


def test_unknown_mixture_is_refused(resolve):
  def edit(config):
    config.mixture = "summ"

  refused(resolve, "finetune", edit, "mixture 'summ'. Did you mean 'sum'")


def test_field_that_the_data_lacks_names_the_objective(resolve):
  def edit(config):
    del config.data.text.mask

  refused(
    resolve,
    "pretrain",
    edit,
    r"'mlm' reads the field 'text_masked' \(int32\[b, \?\]\).*'main' lacks",
  )


FLOATS = """
  import dataclasses
  from mmjax.core.batch import FieldSpec
  from mmjax.objectives.classification import Classification

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Floats(Classification):
    def fields(self, info):
      return {"image": FieldSpec((48, 48, 3), "float32", "h w c")}
"""


def test_field_of_another_form_says_expected_and_got(resolve, plug_in):
  plug_in("floats", FLOATS)

  def edit(config):
    config.tasks.main.objectives.label.name = "floats:Floats"

  refused(
    resolve,
    "finetune",
    edit,
    r"'label' expects 'image' as float32\[b, 48, 48, 3\], the data of task "
    r"'main' has uint8\[b, 32, 32, 3\]",
  )


def test_unknown_key_of_a_tasks_data_names_the_nearest(resolve):
  def edit(config):
    config.tasks.main.data = dict(image=dict(sise=16))

  refused(resolve, "finetune", edit, "Unknown key.*'sise'. Did you mean 'size'")


def test_a_task_may_hide_patches_that_the_others_show(resolve):
  def edit(config):
    config.tasks.main.data = dict(image=dict(mask=dict(rate=0.25)))

  made = parts.make_parts(resolve("finetune", edit))

  # A quarter of a grid of 4 x 4 patches of 8 pixels.
  assert made.pipelines["main"].specs["image_hidden"].shape == (4,)


def audio_and_text(config):
  config.data = dict(
    source="starter_speech",
    audio=dict(sample_rate=8000, max_secs=2.0, mask=dict(num_mels=40)),
    text=dict(field="transcript_en", max_tokens=12),
  )
  tower = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
  config.model.encoders = dict(
    audio=dict(
      name="audio",
      size=tower,
      log_mel=dict(num_mels=40),
      spec_augment=dict(time_masks=1),
    ),
    text=dict(name="text", size=tower),
  )
  config.model.fusion = {}
  config.model.visual_tokenizer = {}
  config.tasks.main.objectives = dict(
    pairs=dict(name="contrastive", modalities=("audio", "text"))
  )
  config.finetune.frozen = ()


def test_an_audio_encoder_knows_the_rate_and_length_of_the_data(
  resolve, starter_path
):
  def edit(config):
    audio_and_text(config)
    config.data.path = starter_path

  config = resolve("pretrain", edit)
  # Sections within a section are filled in too.
  assert config.model.encoders.audio.log_mel.hop_secs == 0.010
  assert config.model.encoders.audio.spec_augment.max_mels == 27
  assert config.data.audio.mask.patch_size == (16, 16)
  stem = parts.make_parts(config).model.encoders["audio"].stem

  assert (stem.log_mel.sample_rate, stem.num_samples) == (8000, 16_000)
  assert stem.log_mel.options.num_mels == 40
  assert settings.resolve(config).to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ("key", "value", "match"),
  [
    # 200 frames of 40 mels are 13 x 3 patches.
    ("data.audio.mask.num_mels", 80, r"grid of \(13, 5\).*has \(13, 3\)"),
    ("model.encoders.audio.sample_rate", 16_000, "sample_rate=16000 but"),
    ("model.encoders.audio.log_mel.mels", 3, r"log_mel\.mels.*num_mels"),
    ("model.encoders.audio.spec_augment.max_share", 2.0, "max_share=2.0"),
  ],
)
def test_an_audio_encoder_that_does_not_fit_the_data_is_refused(
  resolve, starter_path, key, value, match
):
  def edit(config):
    audio_and_text(config)
    config.data.path = starter_path
    *groups, name = key.split(".")
    section = config
    for group in groups:
      section = section[group]
    section[name] = value

  refused(resolve, "pretrain", edit, match)


def two_texts(config):
  config.tasks = dict(
    short=dict(objectives=dict(a=dict(name="masked_lm"))),
    long=dict(
      data=dict(text=dict(max_tokens=20)),
      objectives=dict(b=dict(name="masked_lm")),
    ),
  )


def test_the_model_takes_the_longest_text_of_all_tasks(resolve):
  made = parts.make_parts(resolve("pretrain", two_texts))

  assert made.model.encoders["text"].stem.max_tokens == 20


def test_tasks_that_disagree_about_the_one_model_are_refused(resolve):
  def edit(config):
    config.tasks = dict(
      small=dict(objectives=dict(a=dict(name="classification"))),
      large=dict(
        data=dict(image=dict(size=64)),
        objectives=dict(b=dict(name="classification")),
      ),
    )

  refused(
    resolve,
    "finetune",
    edit,
    "image_size is 64 in the data of 'large' and 32 in that of 'small'",
  )


def test_data_that_nothing_reads_is_refused(resolve):
  def edit(config):
    config.data.text = dict(max_tokens=8)

  refused(
    resolve,
    "finetune",
    edit,
    r"task 'main' has 'text', but the model has no encoder .*\['image'\]",
  )


def test_an_encoder_without_data_is_refused(resolve):
  def edit(config):
    config.model.encoders.text = dict(name="text", vocab_size=9, max_tokens=4)

  refused(
    resolve,
    "finetune",
    edit,
    r"encoders has 'text', which the data of no task has.*\['image'\]",
  )
