"""What the document of reports says was run."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_documents import follow


def test_the_commands_of_the_document_make_pages(tmp_path: Path) -> None:
    follow("docs/report.md", tmp_path)
    page = (tmp_path / "run.html").read_text()
    assert "Bill and forecast" in page
    assert "not traced" not in page
    assert "Computing or communicating?" in (tmp_path / "again.html").read_text()
