"""Files, YAML, seeds and tables: what knows nothing of networks."""
