"""Losses on box answers and on unbalanced labels; pure torch, nothing of LLaMA-Factory."""
