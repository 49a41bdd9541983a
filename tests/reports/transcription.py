"""The transcription of the survey's tables, where one is at hand."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml


def of(table: str) -> dict[str, Any]:
    """The table ("T3") as printed: rows, columns, cells, captions, audit. No transcription: skip the test."""
    path = os.environ.get("BN_SURVEY_TABLES", "")
    if not Path(path).is_file():
        pytest.skip("BN_SURVEY_TABLES does not name the transcription of the survey's tables (YAML)")
    tables = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["tables"]
    found: dict[str, Any] = next(t for t in tables if f"T{t['number']}" == table)
    return found
