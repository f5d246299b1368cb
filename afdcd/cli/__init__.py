"""The command-line tools: they parse arguments and call a runtime.

Importing this, before PyTorch, shortens the time for which OpenMP's threads spin while they wait
for each other. Where other processes want the cores, spinning threads hold up those they wait for:
with this, a step takes a third of the time on a crowded machine, and as long as before on a quiet
one (docs/performance.md). ``GOMP_SPINCOUNT`` and ``OMP_WAIT_POLICY`` of the user's are respected.
"""

import os

SPIN_COUNT = "10000"

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
