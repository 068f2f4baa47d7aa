"""The compiled kernel, which is optional: without a C compiler the project installs all the same, and uses scipy.

With FSD_WITHOUT_KERNEL set there is none, so that the wheel is for any machine.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

_KERNEL = Extension(
    "fsdcore.kernels._native",
    ["fsdcore/kernels/_native.c"],
    depends=[f"fsdcore/kernels/{name}.h" for name in ("_blocks", "_instructions", "_product", "_python", "_threads")],
    # Sums are the same whatever the compiler: it may not fuse or reorder what is not written so.
    extra_compile_args=Path("fsdcore/kernels/flags.txt").read_text(encoding="utf-8").split(),
    extra_link_args=["-pthread"],
    libraries=["m"],
    py_limited_api=True,
    optional=True,
)

if os.environ.get("FSD_WITHOUT_KERNEL"):
    setup()
else:
    setup(ext_modules=[_KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
