"""Synthetic street scenes: a data set that every machine can make for itself."""
