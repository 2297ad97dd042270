r"""Speech and its transcript in one shared space.

5.5 min on 2 CPU cores. 55 held-out recordings, R@10: speech to text 0.91, text
to speech 0.89; by duration alone 0.78 and 0.84; by chance 0.18 (seed 0).

mmjax train --config=configs/pretrain/audio_text.py --workdir=runs/audio_text
"""

import ml_collections as mlc


def get_config(arg: str = "") -> mlc.ConfigDict:
  """`arg` is not used."""
  del arg
  c = mlc.ConfigDict()
  c.stage = "audio-text pretraining"
  c.data = dict(
    source="starter_speech",
    split="train",
    audio=dict(sample_rate=8000, max_secs=12.0, gain_db=6.0, shift_secs=0.2),
    text=dict(
      tokenizer="starter",
      field="transcript_en",
      max_tokens=64,
      mask=dict(rate=0.2),
    ),
  )
  small = dict(embed_dim=128, num_layers=2, num_heads=2, mlp_dim=512)
  c.model = dict(
    encoders=dict(
      audio=dict(
        name="audio",
        stem="patches",
        patch_size=(8, 40),  # All frequencies of 80 ms.
        pool="mean",
        log_mel=dict(num_mels=40),
        spec_augment=dict(
          time_masks=2, max_frames=40, max_share=0.2, mel_masks=2, max_mels=8
        ),
        size=dict(embed_dim=128, num_layers=4, num_heads=2, mlp_dim=512),
      ),
      text=dict(name="text", pool="mean", size=small),
    ),
    fusion=dict(name="joint", size=dict(small, num_layers=1)),
    shared_dim=128,
  )
  c.tasks = dict(
    main=dict(
      objectives=dict(
        mlm=dict(name="masked_lm", given=("audio",), weight=0.3),
        contrastive=dict(name="contrastive", modalities=("audio", "text")),
      )
    )
  )
  c.train = dict(num_steps=500, batch_size=32)
  c.optimizer = dict(peak_lr=1e-3, warmup_steps=50, weight_decay=0.1)
  c.checkpoint = dict(every_steps=100)
  c.log = dict(every_steps=20)
  held_out = dict(split="test")
  c.evaluators = dict(
    retrieval=dict(name="retrieval", modality="audio", data=held_out),
    duration=dict(
      name="retrieval_baseline",
      kind="duration",
      modality="audio",
      data=held_out,
      train_data=dict(split="train"),
    ),
    loss=dict(name="loss", data=held_out),
  )
  return c
