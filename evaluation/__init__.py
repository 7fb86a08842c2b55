"""Scores of prediction files: `run.py` is the command, `evaluate.evaluate` the call."""
