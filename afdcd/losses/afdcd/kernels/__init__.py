"""Faster, exact implementations of the losses' parts."""
