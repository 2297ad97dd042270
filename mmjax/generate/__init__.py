"""Saying texts, and making pictures: from a trained model's logits.

`decoding.py` has the loop over tokens, `sampling.py` what picks the next one,
`beam_search.py` the search for the most likely text, `likelihood.py` the
comparison of given ones, `masked_decoding.py` all codes of a picture in a few
steps. None of them knows a model: they get functions that give logits.
"""
