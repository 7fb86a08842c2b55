"""Losses on box answers and on unbalanced labels; pure torch, nothing of LLaMA-Factory."""

IGNORED = -100  # the label of a token that is not trained
