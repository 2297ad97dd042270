import pytest

from mmjax.core import errors
from mmjax.generate.settings import GenerationSettings


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(strategy="gredy"), "Did you mean 'greedy'"),
    (dict(strategy="sample", top_p=0.0), r"top_p=0.0, expected \(0, 1\]"),
    (dict(strategy="sample", top_p=1.5), r"top_p=1.5, expected \(0, 1\]"),
    (dict(strategy="sample", top_k=-1), "top_k=-1, expected 0 or more"),
    (dict(strategy="sample", temperature=0.0), "temperature=0.0, expected > 0"),
    (dict(strategy="sample", temperature=float("nan")), "temperature=nan"),
    (dict(max_tokens=0), "max_tokens=0, expected 1 or more"),
    (dict(repetition_penalty=-1.0), "repetition_penalty=-1.0, expected > 0"),
    (dict(strategy="beam", beam_size=0), "beam_size=0, expected 1 or more"),
    (dict(strategy="beam", length_penalty=-1.0), "expected 0 or more"),
    (dict(stop=("",)), "an empty text would stop at once"),
    (dict(strategy="beam", stop=(".",)), "ends texts at eos only"),
    (dict(temperature=0.5), "temperature=0.5 changes nothing.*'sample'"),
    (dict(beam_size=8), "beam_size=8 changes nothing.*strategy='beam'"),
    (dict(answer_score="max"), "Unknown score of answers"),
  ],
)
def test_a_wrong_value_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    GenerationSettings(**fields)
