"""`python -m data`: the list, preparing, and bad input with exit status 2 and one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import data
from data.__main__ import main


def test_the_list(mnist_root: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = [f"root={mnist_root}", f"cache={cache}"]
    assert main(where) == 0
    out = capsys.readouterr().out
    for name, line in data.names().items():
        assert name in out
        assert line in out
    assert f"found: {mnist_root / 'MNIST' / 'raw'}" in out
    assert "data set kddcup99 is missing: put" in out
    assert main(["prepare", "mnist", *where]) == 0
    assert str(cache / "mnist.npz") in capsys.readouterr().out
    assert main(where) == 0
    assert f"prepared: {cache / 'mnist.npz'}" in capsys.readouterr().out


def test_the_list_names_the_variant(
    cifar_jpeg_root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"root={cifar_jpeg_root}", f"cache={cache}"]) == 0
    assert "found (cifar10_jpeg)" in capsys.readouterr().out


def test_options_reach_the_set(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "glyphs", "domain=plain", "n_train=20", "n_test=10", f"cache={cache}"]) == 0
    path = Path(capsys.readouterr().out.strip().removeprefix("glyphs: "))
    assert path == data.prepare("glyphs", domain="plain", n_train=20, n_test=10, cache=cache)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "minst"], "unknown data set 'minst'"),
        (["prepare"], "expected"),
        (["show"], "expected"),
        (["size=3"], "not size="),
        (["prepare", "mnist", "colour=red"], "no option 'colour'"),
        (["prepare", "glyphs", "n_train=many"], "n_train"),
        (["prepare", "folder"], "path=DIR"),
        (["prepare", "table"], "path=FILE.csv and target=COLUMN"),
        (["prepare", "keel"], "set=NAME"),
        (["prepare", "keel", "set=irs"], "did you mean iris"),
        (["prepare", "tox21"], "tox21.zip"),
        (["sets"], "sets keel|uci"),
        (["sets", "mnist"], "sets keel|uci"),
        (["sets", "uci"], "no set of uci was found"),
    ],
)
def test_bad_input(arguments: list[str], says: str, cache: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("BN_DATA_CACHE", str(cache))
    monkeypatch.setenv("BN_DATA_ROOT", str(tmp_path / "empty"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert captured.out == ""


def test_the_sets_of_a_collection(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sets", "keel"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["set", "rows", "columns", "classes", "folds"]
    assert ["wine", "178", "13", "3", "10"] in [line.split() for line in lines]
    assert len(lines) == 44


def test_as_a_program(tmp_path: Path) -> None:
    p = subprocess.run([sys.executable, "-m", "data", "prepare", "x"], capture_output=True, text=True)
    assert p.returncode == 2
    assert p.stderr.startswith("error: unknown data set 'x'")
    p = subprocess.run([sys.executable, "-m", "data", "--help"], capture_output=True, text=True)
    assert p.returncode == 0
    assert "prepare NAME" in p.stdout


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml")))
def test_configs_name_sets_and_their_options(path: Path) -> None:
    from data import games
    from data.sets import SETS

    config = yaml.safe_load(path.read_text())
    assert config["name"] == path.stem
    known = games.OPTIONS[path.stem] if games.is_game(path.stem) else SETS[path.stem].options
    assert set(config.get("options", {})) <= set(known)
