"""Settings for all tests."""

import torch

# The networks of the tests are tiny: more threads only get in each other's way.
torch.set_num_threads(1)
