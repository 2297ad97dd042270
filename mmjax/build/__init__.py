"""Config -> objects: the only reader of config fields below the CLI.

`settings.py` has each group with its defaults. `parts.py` makes what a config
describes, with `pipelines.py`, `model.py` and `plug_in.py`; `experiment.py`
places and compiles it, `initial.py` gives it parameters, `training.py` runs
it, `evaluators.py` and `evaluation.py` measure it. Everything that these make
works from a notebook without a config.
"""
