"""``fsd generate``, ``fsd import``, ``fsd info``, ``fsd partition``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fsdcore.cli.app import app
from fsdcore.network.formats import load_inputs, load_network


def fsd(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("n") / "net.safetensors"
    done = fsd("generate", "radixnet", "--neurons", 64, "--layers", 3, "--seed", 5, "-o", file)
    assert done.exit_code == 0, done.output
    return file


def test_generated_network_can_be_loaded(network: Path) -> None:
    loaded = load_network(network)
    assert loaded.widths == (64, 64, 64, 64)
    assert loaded.nonzeros == 3 * 64 * 32


def test_generated_digits_can_be_loaded(tmp_path: Path) -> None:
    file = tmp_path / "in.npz"
    done = fsd("generate", "digits", "--samples", 20, "--neurons", 64, "-o", file)
    assert done.exit_code == 0, done.output
    assert load_inputs(file, 64).shape == (20, 64)
    assert "20 samples of 64 neurons" in done.stdout


def test_the_same_seed_makes_the_same_network(network: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    fsd("generate", "radixnet", "--neurons", 64, "--layers", 3, "--seed", 5, "-o", again)
    fsd("generate", "radixnet", "--neurons", 64, "--layers", 3, "--seed", 6, "-o", other)
    first, same, different = (load_network(file).fingerprint for file in (network, again, other))
    assert first == same != different


def test_info_shows_what_is_in_it(network: Path) -> None:
    done = fsd("info", network)
    assert done.exit_code == 0
    for fact in (
        load_network(network).fingerprint,
        "6,144",
        "50.000%",
        "64 (x4)",
        "clipped_relu(32) (x3)",
        "-0.3",
    ):
        assert fact in done.stdout


def test_a_graph_challenge_folder_is_imported(tmp_path: Path) -> None:
    for layer in (1, 2):
        lines = [f"{n}\t{n % 1024 + 1}\t0.0625\n" for n in range(1, 1025)]
        (tmp_path / f"n1024-l{layer}.tsv").write_text("".join(lines))
    output = tmp_path / "net.safetensors"
    done = fsd("import", "graph-challenge", tmp_path, "--neurons", 1024, "--layers", 2, "-o", output)
    assert done.exit_code == 0, done.output
    assert load_network(output).nonzeros == 2048


def test_a_broken_graph_challenge_file_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "n1024-l1.tsv").write_text("1\t1\t0.5\n1\tx\t0.5\n")
    done = fsd("import", "graph-challenge", tmp_path, "--neurons", 1024, "--layers", 1, "-o", tmp_path / "n")
    assert done.exit_code == 2
    assert "n1024-l1.tsv:2:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("radixnet", "--neurons", "100", "-o", "net.safetensors"), "power of two"),
        (("digits", "--neurons", "100", "-o", "in.txt"), "must end in .npz or .npy"),
        (("digits", "--neurons", "101", "-o", "in.npz"), "square"),
        (("digits", "-o", "."), "must end in"),
        (("radixnet", "-o", "."), "is not a file"),
    ],
)
def test_bad_input_is_2_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fsd("generate", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not [*tmp_path.iterdir()]


def test_info_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"nonsense" * 10)
    done = fsd("info", file)
    assert done.exit_code == 2
    assert str(file) in done.stderr.replace("\n", "")


def test_partition_shows_quality_and_writes_it(network: Path, tmp_path: Path) -> None:
    from fsdcore.partition import load_partition

    output = tmp_path / "part.npz"
    done = fsd("partition", network, "--workers", 3, "--method", "block", "-o", output)
    assert done.exit_code == 0, done.output
    split = load_partition(output)
    split.check(load_network(network))
    assert split.workers == 3
    assert str(output) in done.stdout


def test_an_unknown_method_is_refused(network: Path) -> None:
    done = fsd("partition", network, "--method", "hypergrph")
    assert done.exit_code == 2
    assert "hypergraph" in done.stderr
