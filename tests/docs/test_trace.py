"""The page on traces: its commands and programs do what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.test_documents import follow


@pytest.mark.slow
def test_the_page_on_traces_can_be_followed(tmp_path: Path) -> None:
    follow("docs/trace.md", tmp_path)
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert json.loads((tmp_path / "small.json").read_text())["traceEvents"]
    assert not (tmp_path / "plain-trace.json").exists()
