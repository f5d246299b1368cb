"""The commands' arguments, a file each: without PyTorch, so that ``--help`` comes at once."""
