"""Triton's kernel compiled for GPUs that needn't be there, by the assembler that Triton brings.

The interpreter, in which the other tests run it on a CPU, takes what no GPU would.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# In a process of its own, since this one's Triton interprets.
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from afdcd.losses.ops import contrast_triton as ops

target, dtype, gradient, even = sys.argv[1:]
types = dict.fromkeys(("student", "teacher", "losses", "gradient"), "*" + dtype)
types |= {"kinds": "*i32", "scale": "fp32", "L": "i32", "D": "i32"}
constants = {"B": ops.MOST_TOKENS, "J": ops.TEACHER_BLOCK}
constants |= {"EVEN": even == "True", "GRADIENT": gradient == "True"}
names = ops._contrast.arg_names
source = ASTSource(
    fn=ops._contrast,
    signature={name: types.get(name, "constexpr") for name in names},
    constexprs=constants,
    attrs={
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if even == "True" and name in types and name != "scale"
    },
)
warps = ops.MOST_TOKENS // ops.WARP
made = triton.compile(source, GPUTarget("cuda", int(target), 32), {"num_warps": warps})
assert made.asm["cubin"]
text = made.asm["ptx"]
print(made.metadata.shared, text.count("shfl."), text.count("ld.local"), "ld.global.v4" in text)
"""


@pytest.mark.parametrize(
    ("target", "dtype", "gradient", "even"),
    [
        ("75", "fp32", True, True),
        ("80", "fp32", True, True),
        ("90", "fp32", True, True),
        ("90", "fp32", False, True),
        ("90", "fp32", True, False),
        ("90", "fp64", True, False),
    ],
)
def test_nothing_is_exchanged_between_threads(target, dtype, gradient, even, tmp_path):
    """No shared memory, no shuffles, no spilled registers; the teacher's tokens four at a time."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, target, dtype, str(gradient), str(even)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shared, shuffles, local, wide = done.stdout.split()
    assert (shared, shuffles, local) == ("0", "0", "0")
    assert wide == str(even), "four teacher tokens come by one load"
