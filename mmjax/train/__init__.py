"""How to learn: state, optimizer, step, loop, checkpoint, metrics.

Start with `step.py`, one optimizer step as a pure function, and `loop.py`,
which calls it. `model_call.py` is how a step reaches the model, `variables.py`
gives it parameters; `grad_cache.py` and `conflict.py` are other ways to take
gradients. `checkpoint.py` saves and restores, `metrics.py` and
`writers.py` turn device numbers into rows; `url_folder.py` is where they go if
a run's folder is a URL, and `own_folder.py` how several processes save then.
"""
