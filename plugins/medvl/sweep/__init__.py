"""`medvl sweep`: one recipe trained under many settings, and one table of what came of it."""
