"""The compiled kernel, which is optional: without a C compiler the project installs all the same, and uses scipy."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fsdcore.kernels._native",
            ["fsdcore/kernels/_native.c"],
            depends=[f"fsdcore/kernels/{name}.h" for name in ("_blocks", "_instructions", "_product", "_threads")],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            # Sums are the same whatever the compiler: it may not fuse or reorder what is not written so.
            extra_compile_args=["-std=gnu11", "-O3", "-g0", "-ffp-contract=off", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
            libraries=["m"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
