"""What the documents say was run: their commands, their programs, and the example of a backend."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fsdcore.network.generate import radixnet

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
_FILE = re.compile(r"^# (\S+\.(?:py|toml))\n")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])


class Block(NamedTuple):
    language: str
    text: str


def blocks(document: str) -> Iterator[Block]:
    for language, text in _BLOCK.findall((ROOT / document).read_text()):
        yield Block(language, text)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what the document shows of its output."""
    for part in re.split(r"^(?=\$ |fsd )", block.text, flags=re.MULTILINE):
        line, _, output = part.partition("\n")
        if line.removeprefix("$ ").startswith("fsd "):
            yield line.removeprefix("$ "), output


def run(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def run_python(folder: Path, text: str) -> None:
    done = run(folder, [sys.executable, "-c", text])
    assert done.returncode == 0, done.stderr


def run_command(folder: Path, line: str, shown: str) -> None:
    """Run it; it must end as the document shows: with the error shown, or well."""
    done = run(folder, [sys.executable, "-m", "fsdcore.cli", *line.split()[1:]])
    refused = re.search(r"^fsd: error: .*$", shown, re.MULTILINE)
    assert done.returncode == (2 if refused else 0), done.stderr
    if refused:
        assert refused[0] in done.stderr


def follow(document: str, folder: Path) -> None:
    """Do what the document says, from its beginning to its end; but blocks marked `sh` need a cloud."""
    for block in blocks(document):
        file = _FILE.match(block.text)
        if file:
            (folder / file[1]).write_text(block.text)
        elif block.language == "python":
            run_python(folder, block.text)
        elif block.language != "sh":
            for line, shown in commands(block):
                run_command(folder, line, shown)


@pytest.mark.parametrize("document", ["README.md", "docs/getting-started.md"])
def test_a_newcomer_can_follow_the_document(document: str, tmp_path: Path) -> None:
    follow(document, tmp_path)
    assert (tmp_path / "outputs.npz").exists()


@pytest.mark.slow
def test_the_commands_of_the_reference_run_as_shown(tmp_path: Path) -> None:
    layers = tmp_path / "data"
    layers.mkdir()
    for number, layer in enumerate(radixnet(1024, 2).layers, start=1):
        neurons, inputs = layer.weights.nonzero()
        lines = np.column_stack([inputs + 1, neurons + 1, layer.weights.data])
        np.savetxt(layers / f"n1024-l{number}.tsv", lines, fmt=["%d", "%d", "%.6f"], delimiter="\t")
    follow("docs/cli.md", tmp_path)
    assert (tmp_path / "categories.tsv").exists()


def test_the_backend_of_the_document_passes_its_suites(tmp_path: Path) -> None:
    follow("docs/write-a-backend.md", tmp_path)
    done = run(tmp_path, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fsd_sqlite.py"])
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def anchors(file: Path) -> set[str]:
    """The names of a page's headings, as links have them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for path, anchor in _LINK.findall(document.read_text()):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {path}{anchor}"
