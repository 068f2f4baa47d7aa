"""What all commands keep to: files that are read are never written, usage errors are one line."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fsdcore.cli import main
from fsdcore.cli.app import app
from fsdcore.cli.commands import check_apart
from fsdcore.contracts.settings import RunSettings, kinds
from fsdcore.errors import InputError
from fsdcore.network.formats import load_network
from fsdcore.partition import make_partition, save_partition

RUN = ("run", "net.safetensors", "x.npz", "--workers", "2")


@pytest.fixture
def files(folder: Path) -> Path:
    """The folder, with all that commands read, and each of it by four names."""
    assert main([*RUN, "--trace", "--record", "r.json", "--categories", "c.tsv"]) == 0
    save_partition("p.npz", make_partition(load_network("net.safetensors"), 2, "block", 0))
    assert main(["forecast", "net.safetensors", "x.npz", "--workers", "2", "-o", "f.json"]) == 0
    (folder / "prices.toml").write_text("")
    for name in ("net.safetensors", "x.npz", "r.json", "c.tsv", "p.npz", "f.json", "prices.toml", "fsd.toml"):
        # The endings that outputs must have.
        for ending in ("npz", "json", "html", "toml", "any"):
            os.symlink(name, f"link-{name}.{ending}")
            os.link(name, f"hard-{name}.{ending}")
    return folder


def names(name: str) -> Iterator[str]:
    for ending in ("npz", "json", "html", "toml", "any"):
        yield f"link-{name}.{ending}"
        yield f"hard-{name}.{ending}"
    yield from (name, f"./{name}", str(Path(name).absolute()))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# A command, the files that it reads, and the options that write.
COMMANDS: list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    (
        (*RUN, "--partition", "p.npz", "--truth", "c.tsv", "--config", "fsd.toml", "--bill", "--prices", "prices.toml"),
        ("net.safetensors", "x.npz", "p.npz", "c.tsv", "fsd.toml", "prices.toml"),
        ("--output", "--categories", "--record"),
    ),
    (("partition", "net.safetensors", "--workers", "2"), ("net.safetensors",), ("-o",)),
    (
        ("forecast", "net.safetensors", "x.npz", "--partition", "p.npz", "--model", "prices.toml"),
        ("net.safetensors", "x.npz", "p.npz", "prices.toml", "fsd.toml"),
        ("-o",),
    ),
    (
        ("simulate", "net.safetensors", "x.npz", "--partition", "p.npz", "--conditions", "prices.toml"),
        ("net.safetensors", "x.npz", "p.npz", "prices.toml", "fsd.toml"),
        ("-o", "--record"),
    ),
    (("trace", "r.json"), ("r.json",), ("-o",)),
    (
        ("report", "r.json", "--forecast", "f.json", "--prices", "prices.toml"),
        ("r.json", "f.json", "prices.toml"),
        ("-o",),
    ),
    (("calibrate", "--config", "fsd.toml"), ("fsd.toml",), ("-o",)),
    (("generate", "radixnet", "--neurons", "64"), ("fsd.toml",), ("-o",)),
    (("generate", "digits", "--neurons", "64"), ("fsd.toml",), ("-o",)),
]


@pytest.mark.parametrize(("command", "read", "options"), COMMANDS, ids=lambda value: value[0])
def test_no_command_writes_over_what_it_reads(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    read: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    before = content(files)
    for name, option in itertools.product(read, options):
        for other in names(name):
            capsys.readouterr()
            assert main([*command, option, other]) == 2, (option, other)
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert "would write over" in said
    assert content(files) == before


def test_two_outputs_of_a_command_are_two_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(files)
    os.symlink("yet.json", "way.json")
    for first, second in (("one.json", "./one.json"), ("yet.json", "way.json"), ("r.json", "link-r.json.json")):
        capsys.readouterr()
        assert main([*RUN, "--categories", first, "--record", second]) == 2
        assert "--categories and --record must be different files" in capsys.readouterr().err
    assert content(files) == before


def test_the_page_that_goes_beside_a_record_does_not_replace_it(files: Path) -> None:
    os.rename("r.json", "r.html")
    before = content(files)
    assert main(["report", "r.html"]) == 2
    assert content(files) == before


def test_a_layer_is_not_replaced_by_the_network_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("n4-l1.tsv").write_text("1\t1\t1\n")
    Path("link").symlink_to("n4-l1.tsv")
    command = ("import", "graph-challenge", ".", "--neurons", "4", "--layers", "1", "-o")
    for name in ("n4-l1.tsv", "link"):
        assert main([*command, name]) == 2
        assert "would write over n4-l1.tsv" in capsys.readouterr().err
    assert Path("n4-l1.tsv").read_text() == "1\t1\t1\n"


def test_what_devices_are_called_does_not_matter() -> None:
    null = Path("/dev/null")
    check_apart({"INPUTS": null}, {"--output": null, "--record": null})
    with pytest.raises(InputError, match="--output would write over INPUTS"):
        check_apart({"INPUTS": Path(__file__)}, {"--output": Path(__file__)})


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_that_writes_is_tried_above() -> None:
    writing = {
        path
        for path, command in commands(typer.main.get_command(app))
        for parameter in command.params
        if parameter.opts[0].startswith("-") and parameter.name in ("output", "categories", "record")
    }
    tried = {command[:2] if command[0] == "generate" else command[:1] for command, _, _ in COMMANDS}
    assert writing == tried | {("import", "graph-challenge")}


USAGE = [
    (("runn",), "there is no command 'runn'; did you mean 'run'?"),
    (("generate", "radix"), "there is no command 'radix'; did you mean 'radixnet'?"),
    (("xyz",), "there is no command 'xyz'; see: fsd --help"),
    (("run", "net.safetensors"), "missing argument"),
    (("run", "n", "x", "--recrd", "r.json"), "there is no option '--recrd'; did you mean '--record'?"),
    (("run", "n", "x", "--zzz", "1"), "there is no option '--zzz'; see: fsd run --help"),
    (("run", "n", "x", "--workers", "abc"), "'--workers'"),
    (("run", "n", "x", "--workers"), "--workers"),
    (("run", "n", "x", "y"), "y"),
    (("demo", "--workers", "0"), "'--workers'"),
    (("--nonsense",), "there is no option '--nonsense'"),
    (("config", "shwo"), "there is no command 'shwo'; did you mean 'show'?"),
    (("generate", "radixnet"), "missing option"),
]


@pytest.mark.parametrize(("arguments", "error"), USAGE, ids=lambda value: " ".join(value) if value[0] != "t" else "")
def test_a_usage_error_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str) -> None:
    assert main([*arguments]) == 2
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.startswith("fsd: error: ")
    assert error in said
    assert "─" not in said


@pytest.mark.parametrize("arguments", [(), ("generate",), ("config",)])
def test_a_group_without_a_command_shows_its_help(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert main([*arguments]) == 2
    out, said = capsys.readouterr()
    assert "Commands" in out
    assert said == ""


def test_flags_show_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    for path, _ in commands(typer.main.get_command(app)):
        assert main([*path, "--help"]) == 0
        assert "<bool>" not in capsys.readouterr().out


def test_every_setting_of_a_run_is_an_option_of_fsd_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    said = capsys.readouterr().out
    assert [key for key in kinds(RunSettings) if f"--{key.replace('_', '-')}" not in said] == []
