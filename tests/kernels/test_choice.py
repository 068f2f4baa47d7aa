"""Which kernel is used, and what is said where it cannot be."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from fsdcore import kernels as choice
from fsdcore.errors import ConfigError
from fsdcore.kernels import kernel_name, make_kernel
from fsdcore.testing import random_inputs, random_network
from tests.conftest import SessionMaker


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the project had been installed where there is no C compiler."""
    monkeypatch.setattr(choice, "compiled_is_there", lambda: False)


@pytest.mark.usefixtures("native")
def test_the_compiled_kernel_is_the_first_choice() -> None:
    assert make_kernel().name == make_kernel("compiled").name == "compiled"
    assert make_kernel("scipy").name == kernel_name("scipy") == "scipy"
    assert kernel_name().startswith("compiled (")


@pytest.mark.usefixtures("native")
def test_it_is_found_while_another_thread_imports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    half_there = types.ModuleType("fsdcore.kernels._native")
    half_there.__spec__ = None
    monkeypatch.setitem(sys.modules, "fsdcore.kernels._native", half_there)
    assert choice.compiled_is_there()


@pytest.mark.usefixtures("without_compiler")
def test_without_it_scipy_serves_and_says_so() -> None:
    assert make_kernel().name == "scipy"
    assert "not installed" in kernel_name()


@pytest.mark.usefixtures("without_compiler")
def test_asked_for_by_name_it_must_be_there() -> None:
    with pytest.raises(ConfigError, match="the compiled kernel is not installed"):
        make_kernel("compiled")


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no kernel 'fast'"):
        make_kernel("fast")


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("workers", [1, 3])
def test_runs_give_the_same_with_each(make_session: SessionMaker, workers: int) -> None:
    network, inputs = random_network((20, 30, 25, 10), seed=3), random_inputs(40, 20)
    found = [
        make_session(workers=workers, kernel=kernel).load(network).run(inputs).outputs.toarray()
        for kernel in ("compiled", "scipy")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0], network.infer(inputs).toarray(), rtol=1e-4, atol=1e-5)
