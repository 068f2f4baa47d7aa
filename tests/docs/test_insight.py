"""The pages on costs and reports: their commands and programs do what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_documents import follow


@pytest.mark.slow
@pytest.mark.parametrize(("document", "made"), [("docs/cost.md", "run.json"), ("docs/report.md", "again.html")])
def test_the_page_can_be_followed_from_an_empty_folder(document: str, made: str, tmp_path: Path) -> None:
    follow(document, tmp_path)
    assert (tmp_path / made).exists()
