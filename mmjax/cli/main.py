"""`mmjax VERB --flags`: finds the verb, reports errors, sets the status.

Exit status: 0 = done, 2 = the user can fix it (one message on stderr),
1 = a fault of the program (with its traceback).
"""

import importlib
import sys
import traceback
from collections.abc import Sequence

from mmjax.core import errors

# Verb -> module, what it does. Modules are imported when called for: listing
# the verbs must not wait for jax.
VERBS = {
  "train": ("train", "train any stage; resumes by itself"),
  "evaluate": ("evaluate", "run the evaluators on a checkpoint"),
  "generate": ("generate", "say a text about a picture, clip, sound, text"),
  "embed": ("embed", "write vectors of texts, pictures, clips, recordings"),
  "inspect": ("inspection", "parameters, batches, shardings, FLOPs"),
  "plan": ("plan", "compile for hardware you don't have; what it costs"),
  "profile": ("profiling", "time and FLOPs of a step by kind, and a trace"),
  "report": ("report", "write the HTML page of a run"),
  "bench": ("bench", "time the step of a config, beside other libraries"),
  "bench data": ("bench_data", "measure the input pipeline, beside others"),
  "bench generate": ("bench_generate", "measure how fast texts are said"),
  "convert": ("convert", "released weights -> a workdir, and back"),
  "check objective": ("check_objective", "try an objective, yours or ours"),
  "data check": ("data_check", "show what is in a data set, and what broke"),
  "data prepare": ("data_prepare", "write a data set as shards, fast to read"),
  "data tokens": ("data_tokens", "write the codes of a data set, once"),
  "tokenizer train": ("tokenizer_train", "train a text tokenizer"),
  "weights lora": ("weights_lora", "save what a LoRA run learned, alone"),
  "weights merge": ("weights_merge", "add a LoRA run's adapters to kernels"),
  "weights average": ("weights_average", "average checkpoints of one model"),
  "weights start": ("weights_start", "what a config starts from, as step 0"),
}


def run(argv: Sequence[str] | None = None) -> None:
  """Entry point; exits with the status."""
  status = main(sys.argv[1:] if argv is None else argv)
  if status and (job := sys.modules.get("mmjax.distributed.job")):
    job.exit_at_once(status)
  sys.exit(status)


def main(argv: Sequence[str]) -> int:
  """Runs a verb and returns the exit status."""
  debug = "--debug" in argv
  argv = [a for a in argv if a != "--debug"]
  try:
    if not argv or argv[0] in ("-h", "--help", "help"):
      print(usage())
      return 0
    if argv[0] == "--version":
      import mmjax

      print(f"mmjax {mmjax.__version__}")
      return 0
    verb, rest = find_verb(argv)
    module = importlib.import_module(f"mmjax.cli.{VERBS[verb][0]}")
    return module.main(rest) or 0
  except errors.UserError as e:
    if debug:
      traceback.print_exc()
    print(f"mmjax: {e}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("mmjax: interrupted", file=sys.stderr)
    return 130
  except BrokenPipeError:  # `mmjax inspect | head`
    sys.stderr.close()
    return 0
  except Exception:
    traceback.print_exc()
    return 1


def find_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
  """Splits the arguments into the verb, of one or two words, and the rest."""
  for length in (2, 1):
    verb = " ".join(argv[:length])
    if verb in VERBS:
      return verb, list(argv[length:])
  second = [v.split()[1] for v in VERBS if v.split()[0] == argv[0] and " " in v]
  if second:
    raise errors.UserError(f"'mmjax {argv[0]}' needs one of {second} after it.")
  raise errors.unknown("verb", argv[0], VERBS)


def usage() -> str:
  """The list of verbs."""
  width = max(map(len, VERBS))
  rows = [f"  {verb:{width}}  {what}" for verb, (_, what) in VERBS.items()]
  return "\n".join(
    [
      "mmjax: pretrain and fine-tune multimodal transformers in JAX.",
      "",
      "usage: mmjax VERB --flags",
      "",
      *rows,
      "",
      "'mmjax VERB --help' shows a verb's flags and an example; --debug shows",
      "the traceback of an error.",
    ]
  )
