"""The README's results are what the committed records say, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from reports import readme
from reports.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "reports" / "measured"


def copied(tmp_path, monkeypatch):
    """The committed records in a project of their own, from which commands are typed."""
    shutil.copytree(MEASURED, tmp_path / "reports" / "measured")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("reports") / "measured"


@pytest.mark.slow
@pytest.mark.parametrize("table", sorted(p.name for p in MEASURED.glob("T*") if p.is_dir()))
def test_the_readme_is_what_its_command_writes(tmp_path, monkeypatch, table):
    copy = copied(tmp_path, monkeypatch)
    file = readme.home_of(table, copy)
    before = file.read_text()
    readme.update(file, copy, table)
    assert file.read_text() == before
    for picture in (MEASURED / table).glob("*.svg"):
        again = tmp_path / "reports" / "measured" / table / picture.name
        assert again.read_bytes() == picture.read_bytes(), picture


@pytest.mark.slow
def test_the_overview_is_what_its_command_writes(tmp_path, monkeypatch):
    copy = copied(tmp_path, monkeypatch)
    before = Path("README.md").read_text()
    readme.overview(readme.home_of("", copy), copy)
    assert Path("README.md").read_text() == before
    assert "Of the 141 claims" in before


def test_every_table_stands_in_one_of_the_two_files():
    texts = [(ROOT / "README.md").read_text(), (MEASURED / "README.md").read_text()]
    for folder in MEASURED.glob("T*"):
        assert sum(readme.begin(folder.name) in text for text in texts) == 1, folder.name
    for text, root in zip(texts, (ROOT, MEASURED), strict=True):
        for picture in re.findall(r'(?:src="|]\()([^")]+\.(?:svg|png))', text):
            assert (root / picture).is_file(), picture


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


def test_no_file_with_the_section_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("nothing here")
    for words in (["readme"], ["readme", "table=T3", f"measured={tmp_path}"]):
        assert main([*words, *([] if len(words) > 1 else [f"measured={tmp_path}"])]) == 2
        assert "has a line" in capsys.readouterr().err
