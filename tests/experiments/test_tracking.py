"""Weights & Biases never stops, slows or loses a run: missing, crashing, hanging, and really there but
offline.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONE = ("table=T3", "profile=smoke", "column=ni", "alpha=0.5", "seed=0")
STUBS = {
    "missing": "raise ImportError('no wandb here')",
    "crashing": "def init(**words):\n    raise RuntimeError('quota')",
    "hanging": "import os, time\ndef init(**words):\n    print('pid', os.getpid(), flush=True)"
    "\n    time.sleep(3600)",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUBS)
def test_a_wandb_that_does_not_work_costs_nothing(cli, tmp_path, kind):
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "wandb.py").write_text(STUBS[kind])
    cli.env["PYTHONPATH"] = f"{tmp_path / 'stub'}{os.pathsep}{ROOT}"
    assert cli(*ONE).returncode == 0
    (plain,) = cli.records().values()
    cli.runs = tmp_path / "tracked"
    done = cli(*ONE, "tracking=wandb")
    (tracked,) = cli.records().values()
    assert done.returncode == 0, done.stderr
    assert [tracked[k] for k in ("run_id", "metrics", "curves", "weights")] == [
        plain[k] for k in ("run_id", "metrics", "curves", "weights")
    ]
    log = cli.runs / "wandb" / "mirror.log"
    if kind == "hanging":  # it hangs still, and nobody waited
        while not (said := log.read_text().split()):
            time.sleep(0.1)
        os.kill(int(said[1]), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed (extra `wandb`)"
)
def test_a_real_wandb_offline_holds_config_curve_and_result(cli):
    cli.env |= {"HOME": str(cli.runs.parent), "WANDB_API_KEY": "", "NETRC": "/dev/null"}
    done = cli(*ONE, "tracking=wandb")
    assert done.returncode == 0, done.stderr
    ((run_id, _),) = cli.records().items()
    deadline = time.time() + 90
    while time.time() < deadline:
        found = list((cli.runs / "wandb").rglob(f"*{run_id}.wandb"))
        log = (cli.runs / "wandb" / "mirror.log").read_text()
        if found and b"test_error" in found[0].read_bytes() and "Traceback" not in log:
            break
        time.sleep(0.5)
    assert found, log
    content = found[0].read_bytes()
    assert b"test_error" in content and b"diminishing" in content and b"offline" in str(found[0]).encode()


PAGE = """<section class="pane" id="quick" aria-label="quick"><svg viewBox="" class="plot"><g/></svg>
<svg class="spark"></svg><a href="downloads/T3_quick.csv">CSV</a><a href="downloads/T3_runs.csv">all</a>
</section><section class="pane" id="cpu"><svg class="plot"></svg><a href="downloads/T3_cpu.csv">CSV</a>
</section>
"""


def test_what_a_report_holds_is_its_profiles_table_and_figures(tmp_path):
    from experiments.wandb_report import contents

    (tmp_path / "downloads").mkdir()
    for name in ("T3_quick.csv", "T3_runs.csv", "T3_cpu.csv"):
        (tmp_path / "downloads" / name).write_text("a,b\n1,2\n")
    (tmp_path / "table_03.html").write_text(PAGE)
    files, figures = contents(tmp_path / "table_03.html", "T3", "quick")
    assert [f.name for f in files] == ["T3_quick.csv"]
    assert figures == [("figure_01.svg", '<svg viewBox="" class="plot"><g/></svg>')]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed (extra `wandb`)"
)
def test_a_report_is_an_artifact_of_the_real_wandb_offline(tmp_path):
    (tmp_path / "out" / "downloads").mkdir(parents=True)
    (tmp_path / "out" / "downloads" / "T3_quick.csv").write_text("row,mean\nalpha 1,4.25\n")
    (tmp_path / "out" / "table_03.html").write_text(PAGE)
    told = {"project": "p", "mode": "auto", "dir": str(tmp_path / "w"), "table": "T3", "profile": "quick"}
    said = json.dumps({"settings": told, "page": str(tmp_path / "out" / "table_03.html")})
    env = {**os.environ, "HOME": str(tmp_path), "WANDB_API_KEY": "", "NETRC": "/dev/null"}
    (tmp_path / "w").mkdir()
    words = [sys.executable, "-m", "experiments.wandb_report"]
    done = subprocess.run(words, input=said, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report of T3 quick: 2 files, 1 figures, offline" in done.stdout
    (log,) = (tmp_path / "w").rglob("*.wandb")
    content = log.read_bytes()
    assert b"T3-quick-report" in content and b"figure_01.svg" in content and b"T3_quick.csv" in content
    staged = [p for p in (tmp_path / "w").rglob("*") if p.is_file() and b"alpha 1" in p.read_bytes()]
    assert staged  # the table's figures lie with the runs, for wandb sync


def test_unknown_tracking_is_one_line(cli):
    done = cli(*ONE, "tracking=notebook")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "notebook" in done.stderr
