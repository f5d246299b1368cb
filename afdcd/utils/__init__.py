"""Files, YAML, seeds and tables: utilities that know nothing about networks."""
