"""The command line: one thin program per verb. Start with `main.py`."""
