"""Layers in every kernel's form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsdcore.kernels import compiled_is_there


@pytest.fixture
def native() -> Iterator[None]:
    """The compiled kernel, with the instruction set that it chose put back afterwards."""
    if not compiled_is_there():
        pytest.skip("needs the compiled kernel: install the project where there is a C compiler")
    from fsdcore.kernels import _native

    chosen = _native.instructions()
    yield
    _native.use(chosen)
