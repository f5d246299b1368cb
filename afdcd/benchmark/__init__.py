"""How fast a training step is, and what it keeps in memory, beside the plain published one."""
