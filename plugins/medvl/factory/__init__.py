"""Everything that extends LLaMA-Factory, and nothing that patches it lives elsewhere."""
