"""The sparse product, the one hot spot of a run: compiled, or by scipy. `choice` makes one, `base` says what it is."""

from __future__ import annotations

import os
import platform
from importlib.machinery import PathFinder

from fsdcore.errors import ConfigError
from fsdcore.kernels.base import Kernel

__all__ = ["KERNELS", "compiled_is_there", "kernel_name", "make_kernel"]


KERNELS = ("auto", "compiled", "scipy")


def compiled_is_there() -> bool:
    """Whether the compiled kernel is installed."""
    # Not importlib.util.find_spec, which fails while another thread is in the middle of importing it.
    return PathFinder.find_spec("fsdcore.kernels._native", [os.path.dirname(__file__)]) is not None


def make_kernel(choice: str = "auto", threads: int = 0) -> Kernel:
    """The kernel that the setting `choice` asks for, with `threads` threads (0: as the machine has cores to spare).

    `ConfigError` if it is unknown, or is ``compiled`` and not installed.
    """
    if choice not in KERNELS:
        raise ConfigError(f"there is no kernel {choice!r}; there are: {', '.join(KERNELS)}")
    if choice == "scipy" or (choice == "auto" and not compiled_is_there()):
        from fsdcore.kernels.scipy_kernel import ScipyKernel

        return ScipyKernel()
    if not compiled_is_there():
        raise _not_installed()
    from fsdcore.kernels.compiled import CompiledKernel

    return CompiledKernel(threads)


def _not_installed() -> ConfigError:
    return ConfigError(
        f"the compiled kernel is not installed for this Python ({platform.machine()}); "
        "reinstall fsd-inference where there is a C compiler, or set kernel to scipy"
    )


def kernel_name(choice: str = "auto") -> str:
    """Which kernel the setting `choice` gives here, for people to read; `ConfigError` if it can give none."""
    if choice == "scipy":
        return "scipy"
    if not compiled_is_there():
        if choice == "compiled":
            raise _not_installed()
        return "scipy (compiled one not installed)"
    from fsdcore.kernels import _native

    return f"compiled ({_native.instructions()})"
