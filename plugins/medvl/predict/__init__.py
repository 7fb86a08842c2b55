"""`medvl predict`: questions to predictions, in process or through any OpenAI-compatible server."""
