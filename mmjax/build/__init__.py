"""Config -> objects: the only reader of config fields below the CLI.

`settings.py` has each group with its defaults, `parts.py` makes the data, the
model, the objectives and the evaluators, `experiment.py` places and compiles
them, `training.py` runs them. Everything that these make works from a notebook
without a config.
"""
