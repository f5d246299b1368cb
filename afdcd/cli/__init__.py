"""The command-line tools: they parse arguments and call a runtime."""
