"""The README's results are what the committed records say, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reports import readme
from reports.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "reports" / "measured"


@pytest.mark.slow
@pytest.mark.parametrize("table", sorted(p.name for p in MEASURED.glob("T*") if p.is_dir()))
def test_the_readme_is_what_its_command_writes(tmp_path, table):
    shutil.copytree(MEASURED, tmp_path / "reports" / "measured")
    shutil.copy(ROOT / "README.md", tmp_path)
    readme.update(tmp_path / "README.md", tmp_path / "reports" / "measured", table)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    for picture in (MEASURED / table).glob("*.svg"):
        again = tmp_path / "reports" / "measured" / table / picture.name
        assert again.read_bytes() == picture.read_bytes(), picture


@pytest.mark.skipif(not (MEASURED / "T3").is_dir(), reason="no committed records")
def test_every_published_number_of_the_table_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for printed in ("24.27", "26.09", "79.34", "2.70", "7.32", "16.28"):
        assert printed in text


def test_a_readme_without_the_marks_is_one_line(tmp_path, capsys):
    (tmp_path / "README.md").write_text("nothing here")
    assert main(["readme", "table=T3", f"file={tmp_path / 'README.md'}"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (tmp_path / "README.md").read_text() == "nothing here"
