"""Says a text about what you give it: a caption, an answer, a transcript.

  mmjax generate --workdir=runs/vqa --image=cat.png --prompt="What is it?"

Files go through the transforms of the run's data. The prompt is the question
of a model that reads one, else the beginning of the text that is said. With
--answers the model chooses; one that was trained to pick from a list of
classes shows the most likely ones. With --out it draws pictures of the prompt:

  mmjax generate --workdir=runs/paint --prompt="red apple" --out=apple.png
"""

import sys
from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder or URL of a training run", required=True),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
  Flag("image", "", "file of a picture"),
  Flag("audio", "", "file of a recording"),
  Flag("video", "", "file of a clip"),
  Flag("prompt", "", "question, or beginning of the text"),
  Flag("answers", "", "choose one of these, separated by commas"),
  Flag("strategy", "greedy", "greedy, sample or beam"),
  Flag("temperature", 1.0, "of sample: below 1 makes what is likely more so"),
  Flag("top_k", 0, "of sample: only so many tokens; 0 = all"),
  Flag("top_p", 1.0, "of sample: only the fewest with this probability"),
  Flag("repetition_penalty", 1.0, "above 1: said tokens are less likely"),
  Flag("beam_size", 4, "of beam: texts that the search keeps"),
  Flag("length_penalty", 0.6, "of beam: 0 favours short texts, 1 does not"),
  Flag("max_tokens", 32, "longest text to say, tokens"),
  Flag("stop", "", "end before one of these texts, separated by commas"),
  Flag("seed", 0, "of sample"),
  Flag("num", 1, "texts to say, by sample or beam"),
  Flag("objective", "", "which of the run's objectives says it"),
  Flag("chat", False, "talk with it: lines from the terminal, or piped"),
  Flag("out", "", "draw --num pictures of --prompt into this file, *.png"),
  Flag("steps", 12, "of --out: codes are filled in in so many steps"),
)
SETTINGS = (
  "strategy",
  "temperature",
  "top_k",
  "top_p",
  "repetition_penalty",
  "beam_size",
  "length_penalty",
  "max_tokens",
  "seed",
  "objective",
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend

  backend.set_up()
  if flags.out:
    from mmjax.cli import drawing

    return drawing.run(flags, overrides)
  from mmjax.build import inputs, saying
  from mmjax.build.generation import GenerationSettings
  from mmjax.train import url_folder

  # Before the checkpoint is read: what is wrong with them is known now.
  settings = GenerationSettings(
    **{name: flags[name].value for name in SETTINGS},
    stop=tuple(text for text in flags.stop.split(",") if text),
  )
  given = inputs.Inputs(
    image=flags.image,
    audio=flags.audio,
    video=flags.video,
    prompt=flags.prompt,
  )
  workdir = url_folder.fetched(flags.workdir, flags.step)
  config = arguments.load_saved(workdir, overrides)
  if flags.chat:
    from mmjax.cli import chat

    chat.check_inputs(flags)
    return chat.run(config, workdir, flags.step, settings)
  pieces = saying.say(
    config,
    workdir,
    flags.step,
    given,
    settings,
    answers=[a.strip() for a in flags.answers.split(",") if a.strip()],
    num=flags.num,
  )
  for piece in pieces:
    sys.stdout.write(piece)
    sys.stdout.flush()
  return 0
