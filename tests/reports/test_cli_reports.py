"""`python -m reports`: its words, one line and status 2 for bad input, the quick way out with nothing new."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reports import __main__ as cli
from reports.__main__ import main
from tests.reports import synthetic


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("cli") / "runs"
    synthetic.write_grid(runs)
    synthetic.write(runs, synthetic.cells(1, columns=["mnist"]), 10)
    return runs


def words(runs: Path, out: Path, *more: str) -> list[str]:
    return [*more, f"runs={runs}", f"out={out}", f"measured={out / 'none'}"]


def test_build_prints_the_comparison_and_the_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(runs, tmp_path / "out", "table=T3")) == 0
    first = capsys.readouterr().out
    assert "MNIST: ours on mnist5k" in first and "1.84" in first
    assert (tmp_path / "out/table_03.html").resolve().as_uri() in first
    assert "nothing new" not in first
    assert main(words(runs, tmp_path / "out")) == 0  # of all tables a line each
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"T{n}" for n in range(1, 12)] + ["All"]
    assert lines[2].startswith("T3   quick (10 runs) ") and "6 inconclusive, 3 not run" in lines[2]
    assert (tmp_path / "out/index.html").resolve().as_uri() in lines[-1]
    assert main(words(runs, tmp_path / "out", "table=T3", "profile=quick")) == 0
    again = capsys.readouterr().out
    assert "nothing new" in again and "MNIST: ours on mnist5k" in again and "table_03.html#quick" in again
    assert main(words(runs, tmp_path / "out", "profile=cpu", "table=T3")) == 0
    assert "T3, profile cpu: no records yet" in capsys.readouterr().out
    assert main(words(runs, tmp_path / "out", "profile=cpu")) == 0
    assert "T3   no records of profile cpu" in capsys.readouterr().out


def test_nothing_new_is_found_without_pandas_or_matplotlib(runs: Path, tmp_path: Path) -> None:
    assert main(words(runs, tmp_path / "out")) == 0
    program = (
        "import sys; from reports.__main__ import main; status = main(sys.argv[1:]);"
        "print('heavy:', [m for m in ('pandas', 'matplotlib', 'scipy', 'torch') if m in sys.modules]);"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words(runs, tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nothing new" in done.stdout and "heavy: []" in done.stdout


def test_print_is_the_table_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print", "table=T3", "profile=quick", f"runs={runs}", f"measured={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "MNIST: ours on mnist5k" in out and "html" not in out


def test_sweep_prints_numbers_and_the_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(words(runs, tmp_path, "sweep", "table=T3", "x=alpha", "y=test_error", "data.name=mnist5k")) == 0
    )
    out = capsys.readouterr().out
    assert (
        "inv_m2" in out
        and "95 % interval" in out
        and "sweep_T3_alpha_test-error_data-name-mnist5k.html" in out
    )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("help", "--help", "-h"):
        assert main([word]) == 0
        out = capsys.readouterr().out
        assert all(f"python -m reports {command}" in out for command in cli.KEYS if command != "build")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["bild"], ["'bild'", "sweep"]),
        (["table=T3", "sweep"], ["'sweep'", "key=value"]),
        (["profil=quick"], ["'profil'", "profile"]),
        (["profile="], ["profile=", "key=value"]),
        (["=quick"], ["=quick"]),
        (["profile=quick", "profile=cpu"], ["twice"]),
        pytest.param(
            ["profile=big"], ["'big'", "quick", "paper"], marks=pytest.mark.slow
        ),  # reads all records
        (["table=T12"], ["T12", "T3"]),
        (["table=../../x"], ["../../x"]),
        (["print"], ["table="]),
        pytest.param(["print", "table=T3", "profile=big"], ["'big'", "quick"], marks=pytest.mark.slow),
        (["sweep", "table=T3", "x=alpha"], ["y=", "python -m reports sweep"]),
        pytest.param(
            ["sweep", "table=T3", "x=alphabet", "y=test_error"],
            ["'alphabet'", "optimizer.lr"],
            marks=pytest.mark.slow,
        ),
        (["snapshot"], ["table="]),
        (["snapshot", "table=T3", "out=x"], ["'out'"]),
        (["runs=/no/such/folder"], ["/no/such/folder"]),
        (["serve", "ports=1"], ["'ports'", "port"]),
    ],
)
def test_bad_words_are_one_line_and_status_2(
    line: list[str],
    said: list[str],
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(runs)
    assert main(line) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert all(word in captured.err for word in said), captured.err


def test_output_that_cannot_be_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(words(runs, tmp_path / "file" / "out")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot write" in error and "out=" in error


def test_record_of_a_newer_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    synthetic.write(runs, [synthetic.record("a1", "mnist"), synthetic.record("a0", "mnist") | {"schema": 2}])
    for line in (words(runs, tmp_path / "out"), ["print", "table=T3", f"runs={runs}"]):
        assert main(line) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "schema 2" in error and str(runs) in error


def test_grid_that_is_not_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    synthetic.write_grid(runs)
    (runs / "T3/grid.json").write_text("{")
    assert main(words(runs, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "grid.json" in error


def test_interrupt_is_a_line_and_status_130(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: dict[str, str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "build", interrupted)
    assert main(words(runs, tmp_path)) == 130
    assert "run again" in capsys.readouterr().err


def test_snapshot_then_build_without_runs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured, nothing = tmp_path / "measured", tmp_path / "nothing"
    nothing.mkdir()
    assert main(["snapshot", "table=T3", f"runs={runs}", f"measured={measured}"]) == 0
    assert "10 records" in capsys.readouterr().out
    assert main(["table=T3", f"runs={nothing}", f"out={tmp_path / 'out'}", f"measured={measured}"]) == 0
    assert "mnist5k" in capsys.readouterr().out
    found = json.loads((tmp_path / "out/downloads/T3_quick.json").read_text(encoding="utf-8"))
    assert {cell["origin"] for cell in found["cells"] if cell["n"]} == {"measured"}
    assert 'class="spark"' in (tmp_path / "out/table_03_runs_1.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_pipe_that_closes_early_is_no_error(runs: Path, tmp_path: Path) -> None:
    line = shlex.join([sys.executable, "-m", "reports", "print", "table=T3", f"runs={runs}"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -1"], capture_output=True, text=True
    )
    assert done.stderr == "" and done.stdout.startswith("Table 3")
