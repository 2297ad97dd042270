"""Shared words: interfaces, axis names, batch fields, trees, precision.

Every room may import this one; it imports no other room of mmjax.

Start with `interfaces.py`: what an encoder, a fusion, an objective and an
evaluator are. `batch.py` says what a batch is, `sequence.py` what encoders
return, `axes.py` how array axes are called.
"""
