"""What `import fsdcore` offers is what it says, and costs little."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fsdcore

ROOT = Path(fsdcore.__file__).resolve().parent
CLOUDS = {"boto3", "botocore", "google"}


def test_every_name_is_there_for_programs_and_for_type_checkers() -> None:
    """The names are written down three times: what is offered, where it is, and what a type checker sees."""
    file = ast.parse(Path(fsdcore.__file__).read_text())
    block = next(node for node in file.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(seen) == set(fsdcore.__all__)
    assert len(set(fsdcore.__all__)) == len(fsdcore.__all__)
    for name, home in seen.items():
        assert getattr(fsdcore, name) is getattr(importlib.import_module(str(home)), name)


def test_it_offers_connect_and_its_errors() -> None:
    assert {"connect", "load_network", "Network", "FsdError"} <= set(dir(fsdcore))


def test_a_name_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        fsdcore.nonsense  # noqa: B018 - the look-up is the test


def loaded_by(code: str) -> set[str]:
    """The packages that `code` loads, beside those that an interpreter here begins with."""
    program = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_no_library() -> None:
    assert not loaded_by("import fsdcore") & {"numpy", "scipy", "msgspec", "typer", "rich"}


def test_a_worker_loads_nothing_that_only_a_client_needs() -> None:
    loaded = loaded_by("import fsdcore.worker.worker, fsd_local")
    assert not loaded & {"typer", "rich", "click", "mtkahypar", "sklearn", "pytest", "hypothesis", *CLOUDS}


def imported(file: Path) -> set[str]:
    """The packages that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_core_imports_no_backend_and_no_cloud(file: Path) -> None:
    assert not imported(file) & {"fsd_aws", "fsd_gcp", "fsd_local", *CLOUDS}
