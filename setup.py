"""The compiled kernel, which is optional: without a C compiler the project installs all the same, and uses scipy.

FSD_KERNEL=none leaves it out, so that the wheel is for any machine; FSD_KERNEL=required has the build fail without it.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

_WANTED = os.environ.get("FSD_KERNEL", "")
_KERNEL = Extension(
    "fsdcore.kernels._native",
    ["fsdcore/kernels/_native.c"],
    depends=[
        f"fsdcore/kernels/{name}.h"
        for name in ("_blocks", "_instructions", "_moves", "_product", "_python", "_threads")
    ],
    # Sums are the same whatever the compiler: it may not fuse or reorder what is not written so.
    extra_compile_args=Path("fsdcore/kernels/flags.txt").read_text(encoding="utf-8").split(),
    extra_link_args=["-pthread"],
    libraries=["m"],
    py_limited_api=True,
    optional=_WANTED != "required",
)

# A Python without a global lock has objects of another shape, and no stable ABI yet.
if _WANTED == "none" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    setup()
else:
    setup(ext_modules=[_KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
