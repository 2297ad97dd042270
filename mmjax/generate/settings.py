"""How a text is said: the section `generation` of a config, and the flags."""

import dataclasses

from mmjax.core import errors

STRATEGIES = ("greedy", "sample", "beam")
SCORES = ("sum", "mean")  # Of the log-likelihoods of an answer's tokens.


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSettings:
  """How the next token is picked, and when a text ends.

  Raises:
    UserError: a value out of range, or one that the strategy does not use.
  """

  # "greedy": the most likely token; "sample": one drawn; "beam": the most
  # likely text that a search finds.
  strategy: str = "greedy"
  max_tokens: int = 32  # Of what is said, at most.
  temperature: float = 1.0  # Divides the logits of "sample".
  top_k: int = 0  # "sample" draws among so many tokens; 0 = all.
  top_p: float = 1.0  # Then among the fewest with this probability.
  repetition_penalty: float = 1.0  # Divides logits of tokens that came before.
  beam_size: int = 4  # Texts that "beam" keeps.
  # Of "beam": 0 compares log-likelihoods, 1 nearly their means; GNMT's 0.6 to
  # 0.7 (Wu et al. 2016, table 2).
  length_penalty: float = 0.6
  stop: tuple[str, ...] = ()  # A text ends before one of these.
  seed: int = 0  # Of "sample".
  answer_score: str = "sum"  # How answers to choose from are compared.
  # Name of the objective that has learned to say it; "" = the only one.
  objective: str = ""

  def __post_init__(self):
    if self.strategy not in STRATEGIES:
      raise errors.unknown("strategy", self.strategy, STRATEGIES)
    if self.answer_score not in SCORES:
      raise errors.unknown("score of answers", self.answer_score, SCORES)
    for name, low in (("max_tokens", 1), ("beam_size", 1), ("top_k", 0)):
      if getattr(self, name) < low:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected {low} or more."
        )
    for name in ("temperature", "repetition_penalty"):
      if not 0.0 < getattr(self, name) < float("inf"):
        raise errors.UserError(f"{name}={getattr(self, name)}, expected > 0.")
    if not 0.0 < self.top_p <= 1.0:
      raise errors.UserError(f"top_p={self.top_p}, expected (0, 1].")
    if not self.length_penalty >= 0.0:
      raise errors.UserError(
        f"length_penalty={self.length_penalty}, expected 0 or more."
      )
    if any(not text for text in self.stop):
      raise errors.UserError(
        f"stop={self.stop}: an empty text would stop at once."
      )
    self._check_used("sample", ("temperature", "top_k", "top_p", "seed"))
    self._check_used("beam", ("beam_size", "length_penalty"))
    if self.strategy == "beam" and self.stop:
      raise errors.UserError(
        f"stop={self.stop}: a beam search ends texts at eos only; use strategy "
        "'greedy' or 'sample'."
      )

  def _check_used(self, strategy, names):
    for name in names:
      value, default = getattr(self, name), getattr(type(self), name)
      if self.strategy != strategy and value != default:
        raise errors.UserError(
          f"{name}={value} changes nothing with strategy={self.strategy!r}; "
          f"set strategy={strategy!r}, or leave it out."
        )
