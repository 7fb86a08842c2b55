"""`medvl serve`: LLaMA-Factory's OpenAI-style protocol with the router in front."""
