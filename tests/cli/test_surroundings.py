"""The program under other locales, umasks, homes and terminals, as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fsdcore.network.activations import RELU
from fsdcore.network.formats import save_network, save_outputs
from fsdcore.network.network import Layer, Network
from fsdcore.record.file import read_record

FSD = (sys.executable, "-m", "fsdcore.cli")
RUN = ("run", "net.safetensors", "x.npz", "--workers", "2", "--method", "block")
EVIL = "\x1b]0;owned\x07\x1b[2J\r\nrank 0 ok \u202eexe.\x9b"
# What a locale without UTF-8 is, where the system has no other.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def network(name: str) -> Network:
    return Network([Layer(np.eye(4, dtype=np.float32), 0.0, RELU)] * 3, name=name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith(("FSD_", "LC_", "LANG"))]:
        monkeypatch.delenv(variable)
    save_network(network("réseau 網"), "net.safetensors")
    save_outputs("x.npz", np.ones((3, 4)))
    return tmp_path


def fsd(
    *arguments: str, environ: dict[str, str] | None = None, umask: int = 0o022, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    command = [FSD[0], *options, *FSD[1:], *arguments]
    given = {**os.environ, **(environ or {})}
    return subprocess.run(command, capture_output=True, env=given, umask=umask, timeout=120, check=False)


def error_line(done: subprocess.CompletedProcess[bytes], code: int = 2) -> str:
    assert done.returncode == code, done.stderr
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith(b"fsd: error: ")
    return done.stderr.decode()


# The locale ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale whose files are Latin-1."""
    folder = tmp_path_factory.mktemp("locales")
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE")], capture_output=True, check=False
    )
    if not made or not (folder / "de_DE").is_dir():
        pytest.skip("localedef cannot make a locale of Latin-1 here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def check_files_are_utf8(environ: dict[str, str]) -> None:
    done = fsd(*RUN, "--trace", "--record", "r.json", "--categories", "c.tsv", environ=environ)
    assert done.returncode == 0, done.stderr
    assert read_record("r.json").settings["network"] == "réseau 網"
    for command in (
        ("trace", "r.json", "-o", "t.json"),
        ("report", "r.json", "-o", "r.html"),
        ("bill", "r.json", "--prices", "aws/us-east-1"),
        ("forecast", "net.safetensors", "x.npz", "--workers", "2", "-o", "f.json"),
        ("info", "net.safetensors"),
    ):
        done = fsd(*command, environ=environ)
        assert done.returncode == 0, done.stderr
    assert "réseau 網" in Path("r.html").read_bytes().decode()
    for name in ("t.json", "f.json"):
        json.loads(Path(name).read_bytes())


@pytest.mark.usefixtures("place")
def test_files_are_utf8_in_latin_1(latin: dict[str, str]) -> None:
    check_files_are_utf8(latin)
    shown = fsd("info", "net.safetensors", environ=latin).stdout
    assert "réseau \\u7db2".encode("latin-1") in shown


@pytest.mark.usefixtures("place")
def test_files_are_utf8_in_ascii() -> None:
    check_files_are_utf8(ASCII)
    assert b"r\\xe9seau \\u7db2" in fsd("info", "net.safetensors", environ=ASCII).stdout


@pytest.mark.usefixtures("place")
def test_an_error_names_a_file_that_the_terminal_cannot_show() -> None:
    assert "r\\udcc3\\udca9seau.safetensors" in error_line(fsd("info", "réseau.safetensors", environ=ASCII))


@pytest.mark.usefixtures("place")
def test_no_file_is_opened_in_the_encoding_of_the_locale() -> None:
    options = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:fsdcore")
    record = ("--trace", "--record", "r.json", "--categories", "c.tsv", "-o", "y.npz")
    Path("fsd.toml").write_text("workers = 2\n")
    for command in (
        (*RUN, *record, "--config", "fsd.toml", "--bill"),
        ("report", "r.json", "--prices", "aws/us-east-1"),
        ("trace", "r.json", "-o", "t.json"),
        ("simulate", "net.safetensors", "x.npz", "--workers", "2", "--channel", "queue", "--runs", "1", "-o", "s.json"),
    ):
        done = fsd(*command, options=options)
        assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("place")
def test_files_that_begin_with_the_mark_of_utf8_are_read() -> None:
    assert fsd(*RUN, "--record", "r.json").returncode == 0
    mark = b"\xef\xbb\xbf"
    Path("fsd.toml").write_bytes(mark + b"workers = 2\r\n")
    Path("x.tsv").write_bytes(mark + b"1\t1\t1\r\n2\t3\t1\r\n")
    Path("r.json").write_bytes(mark + Path("r.json").read_bytes())
    assert fsd("run", "net.safetensors", "x.tsv", "--config", "fsd.toml").returncode == 0
    assert fsd("report", "r.json").returncode == 0


# Modes, homes, disks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
@pytest.mark.usefixtures("place")
def test_files_have_the_mode_of_the_umask(umask: int) -> None:
    store = {"FSD_LOCAL_PATH": "store"}
    for command in (
        ("generate", "radixnet", "--neurons", "64", "--layers", "2", "-o", "new.safetensors"),
        ("generate", "digits", "--neurons", "64", "--samples", "3", "-o", "new.npz"),
        ("partition", "net.safetensors", "--workers", "2", "-o", "p.npz"),
        (*RUN, "-o", "y.npy", "--trace", "--record", "r.json", "--categories", "c.tsv"),
        ("trace", "r.json", "-o", "t.json"),
        ("report", "r.json"),
    ):
        done = fsd(*command, umask=umask, environ=store)
        assert done.returncode == 0, done.stderr
    for name in ("new.safetensors", "new.npz", "p.npz", "y.npy", "r.json", "c.tsv", "t.json", "r.html"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o666 & ~umask, name
    kept = [file for file in Path("store").rglob("*") if file.is_file()]
    assert kept
    assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o666 & ~umask}


@pytest.mark.usefixtures("place")
def test_a_home_that_is_not_known_is_one_line() -> None:
    # As in a container whose user has a number, and no name.
    code = "import pwd, sys; pwd.getpwuid = {}.__getitem__; from fsdcore.cli import main; sys.exit(main(sys.argv[1:]))"
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    for command, path in ((RUN, "~/s"), (("doctor", "local"), "~/s")):
        done = subprocess.run(
            [sys.executable, "-c", code, *command],
            capture_output=True,
            env={**environ, "FSD_LOCAL_PATH": "~/s"},
            timeout=120,
            check=False,
        )
        assert f"{path}: the home folder is not known: set HOME" in error_line(done)


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
@pytest.mark.usefixtures("place")
def test_what_was_refused_is_named(name: str) -> None:
    # A limit on the size of files stands in for a quota.
    code = (
        "import resource, signal, sys; from fsdcore.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ("generate", "digits", "--samples", "500", "-o", name)
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, timeout=120, check=False)
    assert error_line(done) == f"fsd: error: {name}: cannot be written: File too large\n"
    assert sorted(file.name for file in Path().iterdir()) == ["net.safetensors", "x.npz"]


@pytest.mark.usefixtures("place")
def test_results_may_go_to_stdout() -> None:
    done = fsd(*RUN, "--record", "/dev/stdout", "--categories", "/dev/null")
    assert done.returncode == 0, done.stderr
    assert b'"run_id"' in done.stdout
    with Path("all").open("wb") as stream:
        subprocess.run([*FSD, *RUN, "--record", "/dev/stdout"], stdout=stream, check=True)
    assert Path("all").read_text().startswith("{")
    assert Path("all").read_text().endswith("have a nonzero output\n")
    assert fsd(*RUN, "--trace", "--record", "r.json").returncode == 0
    with Path("trace").open("wb") as stream:
        subprocess.run([*FSD, "trace", "r.json", "-o", "/dev/stdout"], stdout=stream, check=True)
    assert Path("trace").read_text().startswith("{")
    assert fsd("trace", "r.json", "-o", "/dev/null").returncode == 0
    assert b"must end in .npz" in fsd(*RUN, "-o", "/dev/stdout").stderr


@pytest.mark.usefixtures("place")
def test_one_file_that_cannot_be_written_costs_no_other() -> None:
    done = fsd(*RUN, "-o", "y.npz", "--categories", "/dev/full", "--record", "r.json")
    assert error_line(done) == "fsd: error: /dev/full: cannot be written: No space left on device\n"
    assert read_record("r.json").samples == 3
    assert Path("y.npz").exists()


# The terminal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forced", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"TTY_INTERACTIVE": "1"}, {"GITHUB_ACTIONS": "true"}]
)
@pytest.mark.usefixtures("place")
def test_no_variable_makes_a_terminal_of_a_pipe(forced: dict[str, str]) -> None:
    for command in (RUN, ("doctor",), ("run", "--help")):
        done = fsd(*command, environ=forced)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout + done.stderr
        assert done.stderr == b""


@pytest.mark.usefixtures("place")
def test_bars_are_drawn_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [*FSD, *RUN], stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"}, check=True
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"load layers" in drawn


@pytest.mark.usefixtures("place")
def test_no_control_character_of_a_name_reaches_the_terminal() -> None:
    save_network(network(EVIL), "evil.safetensors")
    save_network(network(EVIL), "a\x1b[31m\nb.safetensors")
    assert fsd("run", "evil.safetensors", *RUN[2:], "--trace", "--record", "r.json").returncode == 0
    record = json.loads(Path("r.json").read_text())
    record |= {"run_id": EVIL, "backend": EVIL}
    Path("bent.json").write_text(json.dumps(record))
    for command in (
        ("info", "evil.safetensors"),
        ("info", "a\x1b[31m\nb.safetensors"),
        ("info", "absent\x1b[31m\u202e"),
        ("run", "evil.safetensors", *RUN[2:]),
        ("run", "net.safetensors", "x.npz", "--backend", EVIL),
        ("run", EVIL),
        (EVIL,),
        ("partition", "evil.safetensors", "--workers", "2", "--method", "block", "-o", "p\x1b[31m\n.npz"),
        ("forecast", "evil.safetensors", "x.npz", "--workers", "2", "--method", "block"),
        ("bill", "bent.json", "--prices", "aws/us-east-1"),
        ("report", "bent.json", "-o", "e\x1b[31m\n.html"),
        ("trace", "bent.json", "-o", "e\x1b[31m\n.json"),
    ):
        done = fsd(*command)
        shown = (done.stdout + done.stderr).decode()
        assert shown
        assert all(each.isprintable() or each == "\n" for each in shown), shown
        assert not any(line.startswith(("rank 0 ok", "b.safetensors", ".")) for line in shown.splitlines())
