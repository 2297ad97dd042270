"""Config -> objects: the only reader of config fields below the CLI.

`settings.py` has each group with its defaults, `parts.py` makes the data,
the model, the objectives and the evaluators, `run.py` puts them together.
Everything it makes works from a notebook without a config.
"""
