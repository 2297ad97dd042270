"""How good answers are, as pure functions of texts and arrays.

Nothing here knows batches, models or evaluators. Texts are compared word by
word, as `words.py` cuts them; start there. Scores are 0..1, CIDEr-D 0..10.
"""
