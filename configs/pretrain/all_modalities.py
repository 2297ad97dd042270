r"""Text, pictures, clips and speech in one model, a task for each pair.

mmjax train --config=configs/pretrain/all_modalities.py --workdir=runs/all

With an argument, the specialist of one pair, at the same steps for it:
`--config=configs/pretrain/all_modalities.py:clips`. Needs the tokenizer of
`make quickstart`.

6 min on 2 CPU cores, specialists 2 to 3. R@10 into text and from text, seed 0:

  pair      held out              all        specialist  chance
  pictures  1,686, unseen artist  .085 .097  .083 .078   .006
  clips     45                    .911 .911  .889 .889   .222
  speech    55                    .818 .873  .800 .818   .182
"""

from pathlib import Path

import ml_collections as mlc

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
TOWER = dict(embed_dim=128, num_layers=4, num_heads=2, mlp_dim=512)
# Of the training pictures: emoji on white.
PIXELS = dict(pixel_mean=(0.82, 0.77, 0.71), pixel_std=(0.28, 0.28, 0.35))
LOOK = dict(size=64, crop_scale=(0.8, 1.0), color_jitter=0.3)


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is a pair of `TASKS`, or "" for all in one model."""
  c = mlc.ConfigDict()
  c.stage = f"{arg or 'all-modality'} pretraining"
  names = [arg] if arg else list(TASKS)
  c.data = dict(
    source="starter_emoji",
    split="train",
    text=dict(
      tokenizer="starter", max_tokens=48, tag_rate=0.5, mask=dict(rate=0.2)
    ),
  )
  c.tasks = {name: TASKS[name] for name in names}
  encoders = {
    name: ENCODERS[name]
    for name in ("text", *(MODALITY[n] for n in names if n in MODALITY))
  }
  c.model = dict(
    encoders=encoders,
    fusion=dict(name="joint", size=dict(SMALL, num_layers=1)),
    shared_dim=128,
  )
  c.train = dict(num_steps=400, batch_size=32)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=40, weight_decay=0.1)
  if {"image", "video"} & set(encoders):
    c.model.visual_tokenizer = dict(
      name="vq",
      patch_size=8,
      num_codes=512,
      code_dim=16,
      encoder_size=SMALL,
      decoder_size=SMALL,
      tubelet_frames=4,
    )
    c.init = dict(
      from_checkpoint=str(ROOT / "runs/quickstart/tokenizer"),
      new=("(?!visual_tokenizer/).*",),
    )
    c.finetune = dict(frozen=("visual_tokenizer/.*",))
  c.checkpoint = dict(every_steps=200)
  c.log = dict(every_steps=20)
  c.evaluators = {
    name: evaluator
    for name, evaluator in EVALUATORS.items()
    if evaluator["task"] in names
  }
  return c


def _pair(modality):
  """Masked words given the modality, and the shared space."""
  return dict(
    mlm=dict(name="masked_lm", given=(modality,), weight=0.2),
    contrastive=dict(
      name="contrastive",
      modalities=(modality, "text"),
      views=("masked", "clean"),
    ),
  )


def _named(task, objectives):
  return {f"{task}_{name}": value for name, value in objectives.items()}


MODALITY = dict(pictures="image", clips="video", speech="audio")
TASKS = dict(
  pictures=dict(
    data=dict(
      image=dict(LOOK, mask=dict(rate=0.25, patch_size=8, strategy="random")),
    ),
    objectives=_named(
      "pictures",
      dict(
        _pair("image"),
        vtp=dict(name="vision_token_prediction", weight=0.2),
      ),
    ),
  ),
  clips=dict(
    data=dict(
      source="starter_clips",
      video=dict(
        LOOK,
        num_frames=8,
        strategy="segments",
        mask=dict(rate=0.5, patch_size=8, tubelet_frames=4),
      ),
    ),
    objectives=_named(
      "clips",
      dict(
        _pair("video"),
        vtp=dict(name="vision_token_prediction", image="video", weight=0.2),
      ),
    ),
  ),
  speech=dict(
    data=dict(
      source="starter_speech",
      audio=dict(sample_rate=8000, max_secs=12.0, gain_db=6.0, shift_secs=0.2),
      text=dict(field="transcript_en"),
    ),
    objectives=_named("speech", _pair("audio")),
  ),
  # Words alone: what FLAVA calls unpaired data.
  words=dict(
    data=dict(source="starter_speech", text=dict(field="transcript_en")),
    objectives=dict(words_mlm=dict(name="masked_lm", given=(), weight=0.1)),
  ),
)
ENCODERS = dict(
  text=dict(name="text", pool="mean", size=SMALL),
  image=dict(
    name="vit", patch_size=8, pool="mean", hidden="drop", size=TOWER, **PIXELS
  ),
  video=dict(
    name="video",
    patch_size=8,
    tubelet_frames=4,
    pool="mean",
    hidden="drop",
    size=TOWER,
    **PIXELS,
  ),
  audio=dict(
    name="audio",
    stem="patches",
    patch_size=(8, 40),  # All frequencies of 80 ms.
    pool="mean",
    log_mel=dict(num_mels=40),
    spec_augment=dict(
      time_masks=2, max_frames=40, max_share=0.2, mel_masks=2, max_mels=8
    ),
    size=TOWER,
  ),
)
EVALUATORS = dict(
  pictures=dict(
    name="retrieval", task="pictures", data=dict(split="unseen_artist")
  ),
  clips=dict(
    name="retrieval", task="clips", modality="video", data=dict(split="test")
  ),
  clips_mean_frame=dict(
    name="retrieval_baseline",
    task="clips",
    kind="mean_frame",
    data=dict(split="test"),
    train_data=dict(split="train"),
  ),
  speech=dict(
    name="retrieval", task="speech", modality="audio", data=dict(split="test")
  ),
  speech_duration=dict(
    name="retrieval_baseline",
    task="speech",
    kind="duration",
    modality="audio",
    data=dict(split="test"),
    train_data=dict(split="train"),
  ),
)
