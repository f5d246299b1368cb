"""The exact, faster ways to compute the losses' parts."""
