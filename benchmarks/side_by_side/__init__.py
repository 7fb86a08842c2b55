"""What `benchmarks/official_scorer.py` is made of: perturbed prediction files, and how each scorer is asked."""
