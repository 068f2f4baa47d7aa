"""The compiled kernel's source is for any processor and any compiler: what cannot run here can at least be compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import fsdcore.kernels

HOME = Path(fsdcore.kernels.__file__).parent
FLAGS = [*(HOME / "flags.txt").read_text().split(), "-O1", "-Werror", "-fPIC"]
# Sizes and places of what Python's stable ABI has as structures.
STRUCTURES = """
#include <stdio.h>
#define SIZE(type) printf(#type " %zu\\n", sizeof(type))
#define PLACE(type, member) printf(#type "." #member " %zu\\n", offsetof(type, member))
int main(void) {
    SIZE(PyObject), SIZE(Py_ssize_t), SIZE(Py_buffer), SIZE(PyMethodDef), SIZE(PyModuleDef_Base), SIZE(PyModuleDef);
    PLACE(Py_buffer, buf), PLACE(Py_buffer, len), PLACE(Py_buffer, readonly), PLACE(Py_buffer, internal);
    PLACE(PyMethodDef, ml_meth), PLACE(PyMethodDef, ml_flags), PLACE(PyMethodDef, ml_doc);
    PLACE(PyModuleDef, m_name), PLACE(PyModuleDef, m_size), PLACE(PyModuleDef, m_methods), PLACE(PyModuleDef, m_free);
    printf("%d %d %d\\n", METH_VARARGS, METH_NOARGS, METH_O);
    return 0;
}
"""


def compiled(compiler: str, folder: Path) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    made = folder / "native.o"
    subprocess.run([compiler, *FLAGS, "-c", str(HOME / "_native.c"), "-o", str(made)], check=True)
    return made


def test_it_compiles_for_arm64_without_a_warning(tmp_path: Path) -> None:
    made = compiled("aarch64-linux-gnu-gcc", tmp_path)
    # ELF, and there the number of the machine it is for.
    head = made.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == 183


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_compiles_here_without_a_warning(compiler: str, tmp_path: Path) -> None:
    assert compiled(compiler, tmp_path).stat().st_size > 0


def test_it_asks_for_no_newer_linux_than_the_oldest_of_a_function() -> None:
    """Glibc 2.26, of Lambda's Python 3.11: or every deployment from here compiles it anew."""
    built = sorted(HOME.glob("_native*.so"))
    if not built:
        pytest.skip("needs the compiled kernel")
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", built[0].read_bytes())]
    assert max(needed, default=0) <= 26


def printed(source: str, folder: Path) -> str:
    (folder / "program.c").write_text(source)
    headers = ["-I", sysconfig.get_path("include"), "-I", str(HOME)]
    # Nothing of Python's is called, so nothing of it is linked.
    subprocess.run(["gcc", *headers, str(folder / "program.c"), "-o", str(folder / "program")], check=True)
    return subprocess.run([folder / "program"], capture_output=True, text=True, check=True).stdout


def test_what_it_declares_of_python_is_as_python_declares_it(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or not Path(sysconfig.get_path("include"), "Python.h").is_file():
        pytest.skip("needs gcc and Python's headers")
    python = "#define Py_LIMITED_API 0x030B0000\n#include <Python.h>\n#include <stddef.h>\n"
    # Functions that differ from Python's own do not compile after them.
    theirs = printed(f'{python}#include "_python.h"\n{STRUCTURES}', tmp_path)
    assert printed(f'#include "_python.h"\n{STRUCTURES}', tmp_path) == theirs != ""
