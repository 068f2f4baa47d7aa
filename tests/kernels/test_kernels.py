"""Kernels against plain numpy, and the compiled one against itself: bits must not depend on how the work is divided."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdcore.activations import IDENTITY, RELU, SIGMOID, TANH, Activation, FloatArray, clipped_relu, leaky_relu
from fsdcore.codec import Rows
from fsdcore.kernels import Activations, Block, Kernel, SparseRows, SparseSamples, make_kernel, visiting_order
from fsdcore.kernels import compiled as compiled_module
from fsdcore.plan import LayerPart, Source

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


def part_of(blocks: list[sp.csr_array], bias: FloatArray, activation: Activation) -> LayerPart:
    sources = tuple(Source(rank, block(each)) for rank, each in enumerate(blocks[1:], start=1))
    return LayerPart(block(blocks[0]), sources, (), bias, activation, activation.keeps_zero(bias))


@dataclass(frozen=True)
class Case:
    """Two layers on one rank: the first from sparse inputs, the second from it and two sources."""

    first: LayerPart
    second: LayerPart
    inputs: sp.csr_array
    sent: tuple[Rows, ...]

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


def run(kernel: Kernel, case: Case, by_sample: bool = False) -> FloatArray:
    """Both layers; all samples of the result."""
    first, second = kernel.prepare(case.first), kernel.prepare(case.second)
    rows = sp.csr_array(case.inputs.T.tocsr())
    inputs: SparseRows | SparseSamples = SparseRows(rows.indptr, rows.indices, rows.data)
    if by_sample:
        inputs = samples_of(case.inputs)
    z = kernel.local(second, kernel.first(first, inputs, case.samples), case.samples)
    for number, sent in enumerate(case.sent):
        z = kernel.add(second, number, sent, z)
    return over_all(z, case.samples)


def over_all(z: Activations, samples: int) -> FloatArray:
    values = np.zeros((z.size, samples), np.float32)
    values[:, z.columns] = z.rows()
    return values


def plain(case: Case) -> FloatArray:
    """Both layers by numpy."""

    def finish(part: LayerPart, z: FloatArray) -> FloatArray:
        z = z + part.bias[:, None]
        part.activation.apply(z)
        return z

    x = finish(case.first, case.first.local.matrix().toarray() @ case.inputs.toarray().T)
    z = case.second.local.matrix().toarray() @ x
    for source, sent in zip(case.second.sources, case.sent, strict=True):
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
        Rows(rows.columns[rows.columns < cut], np.ascontiguousarray(rows.values[:, rows.columns < cut]))
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
    z = kernel.first(kernel.prepare(part), samples_of(inputs), 20)
    np.testing.assert_allclose(over_all(z, 20), (weights @ inputs.T).toarray(), rtol=1e-5)


@pytest.mark.usefixtures("native")
def test_rows_that_share_their_indices_are_computed_together() -> None:
    weights = random_block(np.random.default_rng(3), 64, 50, 0.3, 8)
    prepared = make_kernel("compiled", 1).prepare(part_of([weights], np.zeros(64, np.float32), RELU))
    assert prepared.blocks[0].groups == 16


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", ["compiled", "scipy"])
def test_dead_samples_are_dropped(name: str) -> None:
    weights = sp.csr_array(np.eye(8, dtype=np.float32))
    inputs = sp.csr_array(np.where(np.arange(100)[:, None] % 4 == 0, 1, 0.2) * np.ones(8, np.float32))
    kernel = make_kernel(name)
    layer = kernel.prepare(part_of([weights], np.full(8, -0.5, np.float32), RELU))
    z = kernel.first(layer, samples_of(inputs), 100)
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
    np.testing.assert_array_equal(over_all(kernel.first(layer, inputs, 2), 2), activation.of(values.T))


@pytest.mark.usefixtures("native")
def test_a_product_lets_other_threads_run() -> None:
    """One thread is inside a product for as long as another needs to count on; it can only do so without the lock."""
    from fsdcore.kernels import _native

    done, counted = threading.Event(), 0

    def burn() -> None:
        _native.burn(200_000_000)
        done.set()

    worker = threading.Thread(target=burn)
    worker.start()
    while not done.is_set():
        counted += 1
    worker.join()
    assert counted > 1
