"""What is checked on a GPU: see `afdcd.benchmark.gpu.plan`."""
