"""Visual question answering."""

from mmjax.core import errors
from mmjax.objectives.captioning import Captioning
from mmjax.objectives.classification import Classification


def vqa(
  *,
  num_classes: int | None = None,
  question: str = "text",
  given: tuple[str, ...] = ("image",),
  generate: bool = False,
  label: str = "label",
  multi_label: bool = False,
  answer: str = "answer",
  tied: bool = False,
  head: str = "answer",
  head_kind: str = "linear",
) -> Classification | Captioning:
  """A question about pictures, clips or sounds, answered after their fusion.

  By a class of a list of answers (Antol et al. 2015, arXiv:1505.00468, 4), on
  the pooled question; or, with `generate`, word by word by a decoder (ALBEF,
  Li et al. 2021, arXiv:2107.07651, 4).

  Args:
    num_classes: length of the list of answers; the data's, if they have labels.
    question: field of the text that asks.
    given: modalities that it asks about.
    generate: say the answer instead of picking it.
    label: field with the answer's index.
    multi_label: the label is a share for each answer, see `Classification`.
    answer: field of the text that answers, and name of its decoder.
    tied: the decoder's output shares its token table.
    head: name of the head.
    head_kind: of the list's, "linear" or "mlp" (ViLT).

  Raises:
    UserError: no list of answers to pick from, or labels for what is said.
  """
  if generate:
    if multi_label or head_kind != "linear":
      raise errors.UserError(
        f"generate=True says an answer; multi_label={multi_label} and "
        f"head_kind={head_kind!r} are of a list of them: choose one."
      )
    return Captioning(
      text=answer, given=(question, *given), fused=True, tied=tied, head=head
    )
  if not num_classes:
    raise errors.UserError(
      f"num_classes={num_classes}: vqa picks from a list of answers. Set "
      "config.data.label, or generate=True."
    )
  return Classification(
    num_classes=num_classes,
    modality=question,
    given=given,
    label=label,
    multi_label=multi_label,
    head=head,
    head_kind=head_kind,
  )
