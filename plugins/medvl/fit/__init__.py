"""`medvl fit`: the fastest setting of a recipe on this machine that trains the same."""
