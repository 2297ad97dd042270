"""Learns a vocabulary from texts: the same texts, the same vocabulary.

Both kinds work on bytes, so that no text in any language is unknown: what was
never seen falls back to its bytes.
"""

import json
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmjax.core import errors

# Ids 0 to 4; their names cannot be typed into a text by accident or on purpose.
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<mask>", "<sep>")
MIN_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256  # Special tokens and all bytes.
UNKNOWN = "<unk>"  # The trainer of unigrams wants one; it is left out.
# Probabilities come out equal to about 1e-14, in another order each time.
DECIMALS = 4  # Of a log probability, nats.
NEVER = -1e4  # Log probability of what is not made of texts.


def train(texts: Iterable[str], vocab_size: int, kind: str) -> str:
  """Returns the JSON text of a new tokenizer.

  Args:
    texts: read once.
    vocab_size: entries, special tokens included; of few texts come fewer.
    kind: one of `KINDS`.

  Raises:
    UserError: unknown kind, or `vocab_size` does not hold the bytes and
      special tokens.
  """
  if kind not in KINDS:
    raise errors.unknown("kind of tokenizer", kind, KINDS)
  if vocab_size < MIN_VOCAB_SIZE:
    raise errors.UserError(
      f"vocab_size={vocab_size}, expected at least {MIN_VOCAB_SIZE}: "
      f"{len(SPECIAL_TOKENS)} special tokens and 256 bytes."
    )
  return KINDS[kind](texts, vocab_size).to_str()


def _on_bytes(model: models.Model) -> tokenizers.Tokenizer:
  made = tokenizers.Tokenizer(model)
  made.normalizer = normalizers.NFC()
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  made.decoder = decoders.ByteLevel()
  return made


def bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
  """Merges the most frequent pair, again and again.

  Source: Sennrich et al. 2016 (arXiv:1508.07909) on bytes as in Radford et al.
  2019 (GPT-2).
  """
  made = _on_bytes(models.BPE())
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=list(SPECIAL_TOKENS),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(iter(texts), trainer=trainer)
  return made


def unigram(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
  """Keeps the pieces without which texts would be least likely.

  Source: Kudo 2018 (arXiv:1804.10959), section 3.2, on bytes.
  """
  made = _on_bytes(models.Unigram())
  trainer = trainers.UnigramTrainer(
    vocab_size=vocab_size - len(SPECIAL_TOKENS) + 1,  # `UNKNOWN` leaves again.
    special_tokens=[UNKNOWN],
    unk_token=UNKNOWN,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(iter(texts), trainer=trainer)
  learned = json.loads(made.to_str())["model"]["vocab"]
  special = [(name, NEVER) for name in SPECIAL_TOKENS]
  made.model = models.Unigram(special + _in_order(learned))
  made.add_special_tokens(list(SPECIAL_TOKENS))
  return made


def _in_order(learned: Iterable[list[Any]]) -> list[tuple[str, float]]:
  """The likeliest first, with the scores that every run gives.

  Bytes that texts lack get scores just above the least, in an order that
  changes from run to run: steps of 1e-4, at most one for each byte.
  """
  scores = {p: round(s, DECIMALS) for p, s in learned if p != UNKNOWN}
  least = min(scores.values())
  for piece, score in scores.items():
    if len(piece) == 1 and score < least + 256 * 1e-4 + 1e-3:
      scores[piece] = least
  return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


KINDS = {"bpe": bpe, "unigram": unigram}
