"""Kernels against plain numpy, and the compiled one against itself: bits must not depend on how the work is divided."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdcore.arrays import Float32s
from fsdcore.kernels import compiled as compiled_module
from fsdcore.kernels import compiled_is_there, make_kernel
from fsdcore.kernels.base import Activations, Kernel, SparseRows, SparseSamples, Strip
from fsdcore.messages.rows import Rows, Table
from fsdcore.network.activations import IDENTITY, RELU, SIGMOID, TANH, Activation, clipped_relu, leaky_relu
from fsdcore.plan.plan import Block, LayerPart, Source, visiting_order

ACTIVATIONS = [IDENTITY, RELU, SIGMOID, TANH, clipped_relu(1.5), leaky_relu(0.1)]
INSTRUCTIONS = ["portable", "avx2", "avx512"]

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def block(weights: sp.csr_array) -> Block:
    indptr, indices = weights.indptr.astype(np.int32), weights.indices.astype(np.int32)
    return Block(indptr, indices, weights.data, int(weights.shape[1]), visiting_order(indptr, indices))


def samples_of(inputs: sp.csr_array) -> SparseSamples:
    return SparseSamples(inputs.indptr, inputs.indices.astype(np.int32), inputs.data.astype(np.float32))


def random_block(rng: np.random.Generator, rows: int, width: int, density: float, alike: int) -> sp.csr_array:
    """Weights of which each `alike` rows share their indices; some rows and columns are empty."""
    shared = rng.random((-(-rows // alike), width)) < density
    present = np.repeat(shared, alike, axis=0)[:rows]
    weights = sp.csr_array(np.where(present, rng.normal(size=(rows, width)) + 3, 0).astype(np.float32))
    shuffled = sp.csr_array(weights[rng.permutation(rows)])
    shuffled.sort_indices()
    return shuffled


def part_of(blocks: list[sp.csr_array], bias: Float32s, activation: Activation) -> LayerPart:
    sources = tuple(Source(rank, block(each)) for rank, each in enumerate(blocks[1:], start=1))
    return LayerPart(block(blocks[0]), sources, (), bias, activation, activation.keeps_zero(bias))


@dataclass(frozen=True)
class Case:
    """Two layers on one rank: the first from sparse inputs, the second from it and two sources."""

    first: LayerPart
    second: LayerPart
    inputs: sp.csr_array
    sent: tuple[Rows | Table, ...]

    @property
    def samples(self) -> int:
        return int(self.inputs.shape[0])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 99_999)))
    width, rows, samples = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 150))
    density, alike = draw(st.sampled_from([0.0, 0.1, 0.6])), draw(st.sampled_from([1, 2, 3, 4, 7]))
    activation, bias = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from([-0.4, 0.0, 0.3]))
    biases = np.full(rows, bias, np.float32)
    sent = []
    blocks = [random_block(rng, rows, rows, density, alike)]
    for _ in range(draw(st.integers(0, 2))):
        blocks.append(random_block(rng, rows, width, density, alike))
        columns = np.flatnonzero(rng.random(samples) < draw(st.sampled_from([0.0, 0.3, 1.0]))).astype(np.int32)
        sent.append(Rows(columns, rng.normal(size=(width, columns.size)).astype(np.float32)))
    inputs = sp.csr_array(rng.normal(size=(samples, width)).astype(np.float32) * (rng.random((samples, width)) < 0.2))
    first = part_of([random_block(rng, rows, width, density, alike)], biases, activation)
    return Case(first, part_of(blocks, biases, activation), inputs, tuple(sent))


def run(kernel: Kernel, case: Case, by_sample: bool = False) -> Float32s:
    """Both layers; all samples of the result."""
    first, second = kernel.prepare(case.first), kernel.prepare(case.second)
    rows = sp.csr_array(case.inputs.T.tocsr())
    inputs: SparseRows | SparseSamples = SparseRows(rows.indptr, rows.indices, rows.data)
    if by_sample:
        inputs = samples_of(case.inputs)
    z = kernel.local(second, kernel.first(first, Strip(0, case.samples, inputs), case.samples), case.samples)
    for number, sent in enumerate(case.sent):
        z = kernel.add(second, number, sent, z)
    return over_all(z, case.samples)


def over_all(z: Activations, samples: int) -> Float32s:
    values = np.zeros((z.size, samples), np.float32)
    values[:, z.columns] = z.rows()
    return values


def plain(case: Case) -> Float32s:
    """Both layers by numpy."""

    def finish(part: LayerPart, z: Float32s) -> Float32s:
        z = z + part.bias[:, None]
        part.activation.apply(z)
        return z

    x = finish(case.first, case.first.local.matrix().toarray() @ case.inputs.toarray().T)
    z = case.second.local.matrix().toarray() @ x
    for source, given_rows in zip(case.second.sources, case.sent, strict=True):
        sent = given_rows if isinstance(given_rows, Rows) else given_rows.rows()
        spread = np.zeros((source.block.width, case.samples), np.float32)
        spread[:, sent.columns] = sent.values
        z += source.block.matrix().toarray() @ spread
    return finish(case.second, z)


@many
@given(cases(), st.booleans())
def test_scipy_computes_the_layer(case: Case, by_sample: bool) -> None:
    np.testing.assert_allclose(run(make_kernel("scipy"), case, by_sample), plain(case), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("native")
@many
@given(cases(), st.booleans(), st.sampled_from(INSTRUCTIONS))
def test_compiled_computes_the_layer(case: Case, by_sample: bool, instructions: str) -> None:
    from fsdcore.kernels import _native

    if _native.use(instructions):
        np.testing.assert_allclose(run(make_kernel("compiled", 1), case, by_sample), plain(case), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("native")
@many
@given(cases(), st.sampled_from([16, 32, 48, 64]), st.integers(1, 3))
def test_bits_do_not_depend_on_tiles_or_threads(case: Case, tile: int, threads: int) -> None:
    expected = run(make_kernel("compiled", 1), case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_module, "_tile_for", lambda width: tile)
        patch.setattr(compiled_module, "_WORTH_SHARING", 0)
        np.testing.assert_array_equal(run(make_kernel("compiled", threads), case), expected)


@pytest.mark.usefixtures("native")
@many
@given(cases(), st.integers(0, 999))
def test_bits_do_not_depend_on_the_visiting_order(case: Case, seed: int) -> None:
    part, rng = case.second, np.random.default_rng(seed)
    order = rng.permutation(part.rows).astype(np.int32)
    other = replace(case, second=replace(part, local=replace(part.local, order=order)))
    kernel = make_kernel("compiled", 1)
    np.testing.assert_array_equal(run(kernel, other), run(kernel, case))


@pytest.mark.usefixtures("native")
@many
@given(cases(), st.integers(1, 149))
def test_bits_do_not_depend_on_the_samples_beside(case: Case, cut: int) -> None:
    cut = min(cut, case.samples)
    sent = tuple(
        rows._replace(columns=rows.columns[rows.columns < cut], values=rows.values[:, rows.columns < cut])
        for rows in case.sent
    )
    part = replace(case, inputs=sp.csr_array(case.inputs[:cut]), sent=sent)
    kernel = make_kernel("compiled", 1)
    np.testing.assert_array_equal(run(kernel, part), run(kernel, case)[:, :cut])


@pytest.mark.usefixtures("native")
def test_avx2_and_avx512_agree_to_the_bit() -> None:
    from fsdcore.kernels import _native

    rng = np.random.default_rng(1)
    weights = random_block(rng, 100, 90, 0.4, 4)
    first = part_of([weights], np.full(100, -0.5, np.float32), RELU)
    second = part_of([random_block(rng, 100, 100, 0.4, 1)], np.full(100, -0.5, np.float32), clipped_relu(3))
    case = Case(first, second, sp.csr_array(rng.random((300, 90), np.float32)), ())
    found = [run(make_kernel("compiled", 1), case) for name in ("avx2", "avx512") if _native.use(name)]
    if len(found) < 2:
        pytest.skip("this processor has not both")
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.usefixtures("native")
def test_wide_blocks_have_wide_indices() -> None:
    rng, width = np.random.default_rng(2), 70_000
    columns = rng.integers(0, width, (5, 8))
    weights = sp.csr_array(
        sp.coo_array((rng.random(40, np.float32), (np.repeat(np.arange(5), 8), columns.ravel())), shape=(5, width))
    )
    part = part_of([weights], np.zeros(5, np.float32), RELU)
    inputs = sp.csr_array(sp.random_array((20, width), density=0.01, dtype=np.float32, rng=rng))
    kernel = make_kernel("compiled", 1)
    z = kernel.first(kernel.prepare(part), Strip(0, 20, samples_of(inputs)), 20)
    np.testing.assert_allclose(over_all(z, 20), (weights @ inputs.T).toarray(), rtol=1e-5)


@pytest.mark.usefixtures("native")
def test_rows_that_share_their_indices_are_computed_together() -> None:
    weights = random_block(np.random.default_rng(3), 64, 50, 0.3, 8)
    prepared = make_kernel("compiled", 1).prepare(part_of([weights], np.zeros(64, np.float32), RELU))
    assert prepared.blocks[0].groups == 8


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("width", [40, 20_000])
@pytest.mark.parametrize("activation", [RELU, SIGMOID], ids=str)
@pytest.mark.parametrize("name", ["compiled", "scipy"])
def test_inputs_in_strips_give_the_same_bits(name: str, activation: Activation, width: int) -> None:
    rng = np.random.default_rng(5)
    part = part_of([random_block(rng, 30, width, 0.1, 4)], rng.normal(size=30).astype(np.float32), activation)
    inputs, kernel = (
        sp.csr_array(sp.random_array((331, width), density=0.05, dtype=np.float32, rng=rng)),
        make_kernel(name),
    )
    layer = kernel.prepare(part)
    whole = kernel.first(layer, Strip(0, 331, samples_of(inputs)), 331)
    z = None
    for start, stop in ((0, 64), (64, 256), (256, 331)):
        z = kernel.first(layer, Strip(start, stop - start, samples_of(inputs[start:stop])), 331, z)
    assert z is not None
    np.testing.assert_array_equal(z.columns, whole.columns)
    np.testing.assert_array_equal(z.rows().view(np.uint32), whole.rows().view(np.uint32))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", ["compiled", "scipy"])
def test_dead_samples_are_dropped(name: str) -> None:
    weights = sp.csr_array(np.eye(8, dtype=np.float32))
    inputs = sp.csr_array(np.where(np.arange(100)[:, None] % 4 == 0, 1, 0.2) * np.ones(8, np.float32))
    kernel = make_kernel(name)
    layer = kernel.prepare(part_of([weights], np.full(8, -0.5, np.float32), RELU))
    z = kernel.first(layer, Strip(0, 100, samples_of(inputs)), 100)
    np.testing.assert_array_equal(z.columns, np.arange(0, 100, 4))
    np.testing.assert_array_equal(z.rows(np.array([3], np.int32)), np.full((1, 25), 0.5, np.float32))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("activation", [RELU, clipped_relu(2), leaky_relu(0.1), IDENTITY], ids=str)
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_what_is_not_a_number_stays_so(activation: Activation, instructions: str) -> None:
    from fsdcore.kernels import _native

    if not _native.use(instructions):
        pytest.skip("this processor does not have it")
    kernel = make_kernel("compiled", 1)
    layer = kernel.prepare(part_of([sp.csr_array(np.eye(2, dtype=np.float32))], np.zeros(2, np.float32), activation))
    values = np.array([[np.nan, 5], [-5, np.inf]], np.float32)
    inputs = SparseSamples(np.array([0, 2, 4]), np.array([0, 1, 0, 1], np.int32), values.ravel())
    np.testing.assert_array_equal(over_all(kernel.first(layer, Strip(0, 2, inputs), 2), 2), activation.of(values.T))


@many
@given(cases(), st.integers(1, 3), st.sampled_from(["compiled", "scipy"]))
def test_bits_do_not_depend_on_rows_being_told_once(case: Case, distinct: int, name: str) -> None:
    if name == "compiled" and not compiled_is_there():
        return
    tables = []
    for rows in case.sent:
        numbers = np.arange(rows.values.shape[0]) % distinct
        tables.append(Table(rows.columns, rows.values[:distinct], numbers.astype(np.uint8)))
    kernel = make_kernel(name, 1)
    expected = run(kernel, replace(case, sent=tuple(table.rows() for table in tables)))
    np.testing.assert_array_equal(run(kernel, replace(case, sent=tuple(tables))), expected)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_lets_other_threads_run(threads: int) -> None:
    """Nobody is made to give up the interpreter's lock here, so another thread gets on only if the product lets go."""
    rng = np.random.default_rng(4)
    weights = sp.csr_array(rng.random((500, 500), np.float32))
    kernel = make_kernel("compiled", threads)
    layer = kernel.prepare(part_of([weights], np.zeros(500, np.float32), RELU))
    inputs = samples_of(sp.csr_array(rng.random((2_000, 500), np.float32)))
    x = kernel.first(layer, Strip(0, 2_000, inputs), 2_000)
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0)

    def passes_during_a_product() -> bool:
        before = counted
        kernel.local(layer, x, 2_000)
        return counted > before

    interval = sys.getswitchinterval()
    counter = threading.Thread(target=count)
    try:
        sys.setswitchinterval(1_000)
        counter.start()
        assert any(passes_during_a_product() for _ in range(1_000))
    finally:
        sys.setswitchinterval(interval)
        done.set()
        counter.join()


_AFTER_A_FORK = """
import os, sys
import numpy as np
from fsdcore.kernels import _native
starts, indices = np.arange(0, 2049, 8), np.arange(2048, dtype=np.int32) % 256
made = _native.block(starts, indices, np.ones(2048, np.float32), np.arange(256, dtype=np.int32), 256)
x, none = np.random.default_rng(0).random(256 * 64, np.float32), np.empty(0, np.int32)
lanes = np.arange(64, dtype=np.int32)

def product(threads):
    z, marks = np.empty(256 * 64, np.float32), np.zeros(64, np.uint8)
    finish, scratch = (np.zeros(256, np.float32), 0, 0.0, marks), np.empty(256 * 64, np.float32)
    _native.multiply(made, (x, 64, 64, lanes, none), (z, 64, 64, False), finish, (threads, 16, scratch))
    return z.tobytes()

expected = product(1)
assert all(product(4) == expected for _ in range(200))
child = os.fork()
if child == 0:
    os._exit(0 if all(product(4) == expected for _ in range(200)) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("native")
def test_threads_are_there_again_after_a_fork() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _AFTER_A_FORK], check=True, timeout=120)


@pytest.mark.usefixtures("native")
def test_a_closed_kernel_leaves_its_processors_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_module, "_cores", lambda: 1 << 20)
    gc.collect()
    first = compiled_module.CompiledKernel()
    alone = first.threads
    second = compiled_module.CompiledKernel()
    assert first.threads < alone
    second.close()
    second.close()
    assert first.threads == alone
