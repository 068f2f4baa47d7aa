"""``fsd run`` and ``fsd demo``, for real on the local backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner, Result

import fsdcore.cli.run
from fsdcore.cli.app import app
from fsdcore.client.session import Model
from fsdcore.client.session import Result as Result_
from fsdcore.network.activations import RELU
from fsdcore.network.formats import load_categories, load_inputs, load_network, save_network
from fsdcore.network.network import Layer, Network
from fsdcore.record.record import Record


def fsd(*arguments: object, **environ: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env=environ)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small network and samples for it."""
    folder = tmp_path_factory.mktemp("run")
    network, inputs = folder / "net.safetensors", folder / "in.npz"
    assert fsd("generate", "radixnet", "--neurons", 256, "--layers", 6, "-o", network).exit_code == 0
    assert fsd("generate", "digits", "--neurons", 256, "--samples", 60, "-o", inputs).exit_code == 0
    return network, inputs


@pytest.fixture
def expected(files: tuple[Path, Path]) -> sp.csr_array:
    network = load_network(files[0])
    return sp.csr_array(network.infer(load_inputs(files[1], network.inputs)))


RUN = ("--workers", 3, "--method", "block")


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_writes_outputs_categories_and_record(
    workers: int, channel: str, files: tuple[Path, Path], expected: sp.csr_array, tmp_path: Path
) -> None:
    output, categories, record = (tmp_path / name for name in ("out.npz", "categories.tsv", "run.json"))
    done = fsd(
        *("run", *files, "-o", output, "--workers", workers, "--channel", channel, "--method", "block"),
        *("--batch-size", 25, "--verify", "--categories", categories, "--record", record),
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(sp.load_npz(output).toarray(), expected.toarray(), rtol=1e-3, atol=1e-3)
    assert load_categories(categories).tolist() == np.unique(expected.nonzero()[0]).tolist()
    written = msgspec.json.decode(record.read_bytes(), type=Record)
    assert (written.samples, written.workers, written.batches) == (60, workers, 3)
    assert "outputs are within what float32 allows" in done.stdout
    assert written.run_id in done.stdout
    assert f"{written.counters['rows_sent']:,}" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["categories.tsv", "out.npz", "run.json"]


def test_outputs_may_be_dense(files: tuple[Path, Path], expected: sp.csr_array, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    assert fsd("run", *files, "-o", output, *RUN).exit_code == 0
    np.testing.assert_allclose(np.load(output), expected.toarray(), rtol=1e-3, atol=1e-3)


def test_a_wrong_result_is_1_and_names_sample_and_neuron(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Model.run

    def wrong(model: Model, x: object) -> Result_:
        found = honest(model, x)
        y = found.outputs.tolil()
        y[2, 7] = 30.5
        return Result_(sp.csr_array(y), found.record)

    monkeypatch.setattr(Model, "run", wrong)
    output, record = tmp_path / "out.npz", tmp_path / "run.json"
    done = fsd("run", *files, "-o", output, "--record", record, "--verify", *RUN)
    assert done.exit_code == 1
    assert "sample 2, neuron 7" in done.stderr
    assert "30.5 instead of" in done.stderr
    assert record.exists()
    assert sp.load_npz(output).toarray()[2, 7] == np.float32(30.5), "what was paid for is written, right or wrong"


def test_categories_are_compared_with_a_truth_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    truth = tmp_path / "truth.tsv"
    assert fsd("run", *files, *RUN, "--categories", truth).exit_code == 0
    assert fsd("run", *files, *RUN, "--truth", truth).exit_code == 0
    lines = truth.read_text().splitlines()
    truth.write_text("".join(f"{line}\n" for line in lines[1:]))
    done = fsd("run", *files, *RUN, "--truth", truth)
    assert done.exit_code == 1
    assert f"the first is sample {int(lines[0]) - 1}, not in the file" in done.stderr


def test_a_partition_from_a_file_brings_its_workers(files: tuple[Path, Path], tmp_path: Path) -> None:
    split, record = tmp_path / "part.npz", tmp_path / "run.json"
    assert fsd("partition", files[0], "--workers", 5, "--method", "random", "-o", split).exit_code == 0
    done = fsd("run", *files, "--partition", split, "--record", record, "--verify")
    assert done.exit_code == 0, done.output
    assert msgspec.json.decode(record.read_bytes(), type=Record).workers == 5
    done = fsd("run", *files, "--partition", split, FSD_WORKERS="4")
    assert done.exit_code == 2
    assert "for 5 workers, 4 were asked for (environment FSD_WORKERS)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", 0), "workers must be at least 1"),
        (("--backend", "locl"), "did you mean 'local'?"),
        (("--channel", "queu"), "did you mean 'queue'?"),
        (("--method", "blok"), "method must be one of hypergraph, block, random, not 'blok'"),
        (("--batch-size", -1), "batch_size must be at least 0"),
        (("--in-flight", 0), "in_flight must be at least 1"),
        (("--kernel", "abacus"), "kernel must be one of auto, compiled, scipy, not 'abacus'"),
        (("-o", "absent/out.npz"), "there is no folder absent"),
        (("-o", "out.txt"), "must end in .npz or .npy"),
        (("-o", "x.npz", "--record", "./x.npz"), "must be different files"),
        (("--config", "absent.toml"), "absent.toml: cannot be read"),
        (("--partition", "absent.npz"), "absent.npz"),
        (("--truth", "absent.tsv"), "absent.tsv"),
    ],
)
def test_bad_input_is_2_and_one_line(arguments: tuple[object, ...], message: str, files: tuple[Path, Path]) -> None:
    done = fsd("run", *files, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_inputs_that_do_not_fit_are_refused_before_the_split(files: tuple[Path, Path], tmp_path: Path) -> None:
    inputs = tmp_path / "in.npz"
    sp.save_npz(inputs, sp.csr_array(np.ones((2, 64), dtype=np.float32)))
    done = fsd("run", files[0], inputs)
    assert done.exit_code == 2
    assert "64 neurons" in done.stderr
    assert "256" in done.stderr


def test_a_run_out_of_time_is_1(files: tuple[Path, Path]) -> None:
    done = fsd("run", *files, *RUN, FSD_RUN_SECONDS="0.000001")
    assert done.exit_code == 1
    assert done.stderr.startswith("fsd: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_stops_the_run(tmp_path: Path) -> None:
    network, inputs = tmp_path / "net.safetensors", tmp_path / "in.npz"
    assert fsd("generate", "radixnet", "--neurons", 1024, "--layers", 120, "-o", network).exit_code == 0
    assert fsd("generate", "digits", "--neurons", 1024, "--samples", 20_000, "-o", inputs).exit_code == 0
    output, store = tmp_path / "out.npz", tmp_path / "store"
    command = [sys.executable, "-m", "fsdcore.cli", "run", network, inputs, "-o", output, "--method", "block"]
    process = subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True, env={**os.environ, "FSD_LOCAL_PATH": str(store)}
    )
    until = time.monotonic() + 60
    while not [*store.glob("runs/*/inputs/*")] and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "fsd: stopped; all workers were told to stop\n")
    assert not output.exists()
    assert not [path for path in store.glob("runs/**/*") if path.is_file()], "nothing of the run is left"


def test_the_demo_agrees_with_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.cli.run, "_LAYERS", 4)
    monkeypatch.setattr(fsdcore.cli.run, "_SAMPLES", 50)
    done = fsd("demo", "--workers", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("serial, queue, object: all outputs are right")
    one = fsd("demo", "--workers", 2, "--channel", "object")
    assert one.stdout.splitlines()[-1].startswith("serial, object: all outputs are right")


def test_the_demo_refuses_a_channel_that_is_not_there() -> None:
    done = fsd("demo", "--channel", "pigeon")
    assert done.exit_code == 2
    assert "no channel 'pigeon'" in done.stderr


def test_a_tsv_may_end_before_its_last_samples(files: tuple[Path, Path], tmp_path: Path) -> None:
    inputs, output = tmp_path / "five.tsv", tmp_path / "o.npy"
    inputs.write_text("1\t1\t1\n3\t1\t1\n")
    done = fsd("run", files[0], inputs, "--workers", 1, "--samples", 5, "-o", output)
    assert done.exit_code == 0, done.output
    assert np.load(output).shape[0] == 5


def test_network_and_inputs_that_are_swapped_are_said_to_be_so(files: tuple[Path, Path]) -> None:
    done = fsd("run", *reversed(files))
    assert (done.exit_code, "are swapped: the network comes first" in done.stderr) == (2, True)


def test_a_split_that_is_given_is_not_made_by_a_method(files: tuple[Path, Path], tmp_path: Path) -> None:
    done = fsd("run", *files, "--partition", tmp_path / "p.npz", "--method", "random")
    assert (done.exit_code, "leave out --method and --seed" in done.stderr) == (2, True)


def test_a_bias_of_ones_own_for_sizes_between_the_official_ones(tmp_path: Path) -> None:
    network = tmp_path / "n.safetensors"
    given = ("generate", "radixnet", "--neurons", 2048, "--layers", 2, "-o", network)
    assert fsd(*given).exit_code == 2
    assert fsd(*given, "--bias", -0.25).exit_code == 0
    assert set(load_network(network).layers[0].bias.tolist()) == {-0.25}


def test_overflow_is_named_with_its_layer_without_verify(tmp_path: Path) -> None:
    layers = [Layer(np.full((4, 4), 1e30), 0.0, RELU)] * 3
    save_network(Network(layers), tmp_path / "big.safetensors")
    np.save(tmp_path / "ones.npy", np.ones((2, 4)))
    given = ("run", tmp_path / "big.safetensors", tmp_path / "ones.npy", "--workers", 2, "--method", "block")
    done = fsd(*given)
    assert (done.exit_code, "float32 overflowed in layer 2: 2 of 2 samples" in done.stderr) == (0, True)
    verified = fsd(*given, "--verify")
    assert (verified.exit_code, "sums of layer 2 are beyond float32" in verified.stdout) == (0, True)
