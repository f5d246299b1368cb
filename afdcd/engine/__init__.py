"""What both runtimes share: steps, state, checkpoints, optimizer, schedule, logs, results."""
