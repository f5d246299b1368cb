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
import struct
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from afdcd.losses.afdcd.kernels import contrast_triton as ops

target, dtype, gradient, even = sys.argv[1:]
types = dict.fromkeys(("student", "teacher", "losses", "gradient"), "*" + dtype)
types |= {"kinds": "*i32", "L": "i32", "D": "i32"}
constants = {"B": ops.MAX_TOKENS, "J": ops.TEACHER_BLOCK, "SCALE": 1 / 0.07}
constants |= {"EVEN": even == "True", "GRADIENT": gradient == "True"}
names = ops._contrast.arg_names
source = ASTSource(
    fn=ops._contrast,
    signature={name: types.get(name, "constexpr") for name in names},
    constexprs=constants,
    attrs={
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if even == "True" and name in types
    },
)
warps = ops.MAX_TOKENS // ops.WARP
made = triton.compile(source, GPUTarget("cuda", int(target), 32), {"num_warps": warps})
assert made.asm["cubin"]
text = made.asm["ptx"]
immediate = {"fp32": ("0f", ">f"), "fp64": ("0d", ">d")}[dtype]
scale = immediate[0] + struct.pack(immediate[1], -constants["SCALE"]).hex().upper()
wide = "ld.global.v4" in text
print(made.metadata.shared, text.count("shfl."), text.count("ld.local"), wide, scale in text)
"""


@pytest.mark.slow
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
def test_compiles_to_what_is_meant(target, dtype, gradient, even, tmp_path):
    """No shared memory, no shuffles, no spilled registers; the teacher's tokens four at a time.

    And the temperature in the tokens' precision.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, target, dtype, str(gradient), str(even)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shared, shuffles, local, wide, scale = done.stdout.split()
    assert (shared, shuffles, local) == ("0", "0", "0")
    assert wide == str(even), "four teacher tokens come by one load"
    assert scale == "True", "Triton rounds a number that a kernel is given to float32"
