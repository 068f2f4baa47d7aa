"""``make wheels``: what a release consists of installs, and has the kernel that its name promises."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

from fsdcore.deploy import Target
from fsdcore.deploy.fetching import misfit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
_KERNEL = "fsdcore/kernels/_native.abi3.so"
_TELL = "from fsdcore.kernels import kernel_name; print(kernel_name())"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By platform: what ``make wheels`` makes of a clean copy."""
    if shutil.which("make") is None or shutil.which("git") is None:
        pytest.skip("needs make and git")
    copy = tmp_path_factory.mktemp("release") / "the project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs a checkout of the project")
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, copy / name)
    # The environment of the tests in place of one of its own, and left as it is.
    ready = Path(sys.prefix) / ".ready"
    subprocess.run(["make", "-o", ready, "wheels", f"VENV={sys.prefix}", f"READY={ready}"], cwd=copy, check=True)
    made = {path.stem.split("-")[-1]: path for path in (copy / "dist").glob("*.whl")}
    assert len(list((copy / "dist").glob("*.tar.gz"))) == 1
    return made


def test_there_is_one_for_every_machine(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "any"}
    contents = {platform: zipfile.ZipFile(path).namelist() for platform, path in wheels.items()}
    assert [platform for platform, names in sorted(contents.items()) if _KERNEL in names] == [
        "manylinux_2_17_aarch64",
        "manylinux_2_17_x86_64",
    ]
    for names in contents.values():
        # What a deployment compiles the kernel from, fetches, and installs.
        for needed in ("kernels/_native.c", "kernels/_python.h", "kernels/flags.txt", "deploy/compiler.txt"):
            assert f"fsdcore/{needed}" in names
        assert "fsd_aws/deploy/requirements.txt" in names
        assert "fsd_gcp/deploy/requirements.txt" in names
        assert not any(name.startswith("tests/") for name in names)


@pytest.mark.parametrize(("platform", "machine"), [("x86_64", "x86_64"), ("aarch64", "arm64")])
def test_the_kernel_in_it_runs_on_the_oldest_linux(
    platform: str, machine: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels[f"manylinux_2_17_{platform}"]) as archive:
        kernel = Path(archive.extract(_KERNEL, tmp_path))
    assert misfit(kernel, Target("3.11", machine, 17)) is None


class Installed:
    """An environment that has wheels of the project and what they ask for, and nothing else."""

    def __init__(self, folder: Path, *wheels: str) -> None:
        self.folder, self.bin = folder, folder / "venv" / "bin"
        uv_program = uv.find_uv_bin()
        subprocess.run([uv_program, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
        command: list[str | Path] = [uv_program, "pip", "install", "--quiet", "--python", self.bin / "python", *wheels]
        done = subprocess.run(command, capture_output=True, text=True)
        if "not compatible" in done.stderr or "incompatible" in done.stderr:
            pytest.skip("this machine is not what the wheel is for")
        assert done.returncode == 0, done.stderr

    @property
    def environ(self) -> dict[str, str]:
        """Without what leads to the checkout."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FSD_"))}
        return {**kept, "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True)


@pytest.mark.parametrize("platform", ["manylinux_2_17_x86_64", "any"])
def test_it_installs_and_multiplies(platform: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    done = Installed(tmp_path, f"{wheels[platform]}[client]").run("python", "-I", "-c", _TELL)
    assert done.stdout.startswith("compiled (" if platform != "any" else "scipy ("), done.stderr


def test_without_extras_it_is_imported_and_the_command_names_the_one_it_needs(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    installed = Installed(tmp_path, str(wheels["any"]))
    assert installed.run("python", "-c", "import fsdcore; print(fsdcore.Network.__name__)").stdout == "Network\n"
    done = installed.run("fsd", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fsd: error: the command line needs the package 'typer', which is not installed; "
        "run: pip install 'fsd-inference[client]'\n"
    )


def test_the_commands_of_the_readme_work_beside_modules_of_the_users_own(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    installed = Installed(tmp_path, f"{wheels['any']}[demo]")
    # Names that a user may well have.
    for name in ("backends", "emulators", "cli", "worker"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not yours')\n")
    readme = (PROJECT / "README.md").read_text()
    by_hand, in_python = (readme.split("The same by hand")[1].split("```")[each] for each in (1, 3))
    for line in by_hand.strip().splitlines()[1:]:
        done = installed.run(*line.split())
        assert done.returncode == 0, done.stderr
    done = installed.run("python", "-c", in_python.removeprefix("python\n"))
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["(1000,", "1024)"]), done.stderr


@pytest.fixture(scope="module")
def emulators(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The project with its clouds, and the distribution of the emulators."""
    folder = tmp_path_factory.mktemp("emulators")
    copy = wheels["any"].parents[1] / "emulators"
    subprocess.run([uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", folder, copy], check=True)
    (made,) = folder.glob("fsd_emulators-*.whl")
    return Installed(folder, f"{wheels['any']}[client,aws,gcp]", str(made))


@pytest.mark.parametrize(
    ("cloud", "variable", "told"),
    [("aws", "AWS_ENDPOINT_URL", "making an environment for ministack"), ("gcp", "FSD_GCP_PUBSUB_ENDPOINT", "")],
)
def test_services_start_outside_of_a_checkout(cloud: str, variable: str, told: str, emulators: Installed) -> None:
    environ = {**emulators.environ, "XDG_CACHE_HOME": str(emulators.folder / "cache")}
    command: list[str | Path] = [emulators.bin / "fsd", "emulate", cloud]
    said = emulators.folder / f"{cloud}.log"
    with (
        said.open("w") as errors,
        subprocess.Popen(
            command, cwd=emulators.folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as services,
    ):
        assert services.stdout is not None
        led = next((line for line in services.stdout if line.startswith(f"export {variable}=")), "nothing was told")
        services.send_signal(signal.SIGINT)
    assert (led.startswith("export "), services.returncode) == (True, 0), said.read_text()
    assert told in said.read_text()
