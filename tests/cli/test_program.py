"""The program as a process: start-up, exit codes, one line per error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FSD = (sys.executable, "-m", "fsdcore.cli")


def fsd(*arguments: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = FSD if code is None else (sys.executable, "-c", code)
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def error_line(done: subprocess.CompletedProcess[str], exit_code: int = 2) -> str:
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith("fsd: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_help_names_every_command_and_imports_no_numbers() -> None:
    code = (
        "import sys; from fsdcore.cli import main; code = main(['--help'])\n"
        "sys.exit(code or bool({'numpy', 'scipy', 'mtkahypar'} & set(sys.modules)))"
    )
    done = fsd(code=code)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "generate", "import", "info", "partition", "run", "backends", "config", "doctor"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("absent", ["typer", "rich"])
def test_without_the_client_extra_one_line_says_what_to_install(absent: str) -> None:
    done = fsd(code=f"import sys; sys.modules[{absent!r}] = None; from fsdcore.cli import main; sys.exit(main())")
    assert "pip install 'fsd-inference[client]'" in error_line(done, 1)


@pytest.mark.parametrize(
    "arguments",
    [("runn",), ("run",), ("info", "--nonsense"), ("generate", "radixnet", "--layers", "x", "-o", "n")],
)
def test_usage_errors_are_2(arguments: tuple[str, ...]) -> None:
    done = fsd(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_missing_network_is_one_line() -> None:
    assert "no/such.safetensors" in error_line(fsd("info", "no/such.safetensors"))


def test_the_output_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    output = tmp_path / "absent" / "net.safetensors"
    done = fsd("generate", "radixnet", "--neurons", "7", "-o", output)
    assert f"there is no folder {output.parent}" in error_line(done)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    # A limit on the size of files stands in for the disk.
    code = (
        "import resource, signal, sys; from fsdcore.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    output = tmp_path / "in.npz"
    done = fsd("generate", "digits", "--samples", "500", "-o", output, code=code)
    assert "in.npz" in error_line(done)
    assert not [*tmp_path.iterdir()], "nothing half written is left"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*FSD, "doctor"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writer)
    assert done.stderr == ""


def test_stopping_it_says_so() -> None:
    code = (
        "import sys; from fsdcore.cli import main, system\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "system._versions = stop\n"
        "sys.exit(main(['doctor']))"
    )
    done = fsd(code=code)
    assert (done.returncode, done.stderr) == (130, "fsd: stopped\n")
