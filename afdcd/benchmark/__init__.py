"""Speed and memory of a training step, compared with the plain published one."""
