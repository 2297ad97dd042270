"""How to learn: state, optimizer, step, loop, checkpoint, metrics.

Start with `step.py`, one optimizer step as a pure function, and `loop.py`,
which calls it. `checkpoint.py` saves and restores, `metrics.py` and
`writers.py` turn device numbers into rows.
"""
