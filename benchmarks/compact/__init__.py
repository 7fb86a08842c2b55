"""A detector small enough to train from scratch on one core, which answers with the box text real models are given."""
