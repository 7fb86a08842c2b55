"""`medvl doctor`: looks at this machine and this installation, and says in plain words what would go wrong."""
