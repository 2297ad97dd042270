"""How to adapt a trained model to something else.

`freeze.py` says which parameters are trained, `surgery.py` moves parameters
of one model into another that is not quite the same.
"""
