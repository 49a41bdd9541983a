"""The real command line: the smoke grid, resuming, failing, stopping, bad input, the user's own layer and
data.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main as command

ROOT = Path(__file__).resolve().parents[2]
ONE = ("table=T3", "profile=smoke", "column=ni", "alpha=0.5", "seed=0")


@pytest.mark.slow
def test_the_smoke_grid_whole_and_again(cli):
    first = cli("-m", "table=T3", "profile=smoke")
    assert first.returncode == 0, first.stderr
    records = cli.records()
    assert "30 runs, 0 done before, 30 to do" in first.stdout and len(records) == 30
    assert {r["status"] for r in records.values()} == {"finished"}
    grid = json.loads((cli.runs / "T3" / "grid.json").read_bytes())
    points = [p["config"] for p in grid["profiles"]["smoke"]["points"]]
    for r in records.values():
        config = {k: v for k, v in r["config"].items() if k != "seed"}
        assert config in points
        paper = json.loads((cli.runs / "T3" / "paper" / f"{r['paper']}.json").read_bytes())["config"]
        assert paper["alpha"] == config["alpha"] and paper["epochs"] in (200, 100, 50)
        assert r["time"]["wall_s"] > 0 and r["time"]["peak_memory_bytes"] > 1e6 and r["parameters"] > 100
        assert r["host"]["threads"] == 1 and r["packages"]["torch"] and r["git"].keys() == {"commit", "dirty"}
        assert r["data"]["n_test"] > 0 and len(r["curves"]["epoch"]) == r["epochs"] == 2
    assert {p["members"] for r in records.values() if (p := r["population"])} == {10}
    again = cli("-m", "table=T3", "profile=smoke")
    assert again.returncode == 0 and "30 done before, 0 to do" in again.stdout and cli.records() == records
    status = subprocess.run(
        [sys.executable, "-m", "experiments.status", f"runs={cli.runs}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=cli.env,
    )
    lines = [line.split() for line in status.stdout.splitlines()]
    row = next(line for line in lines if line[:2] == ["T3", "smoke"])
    assert ["T5", "smoke", "44", "0", "0", "0", "0", "0", "44", "0", "0"] in lines  # of a search
    assert row == ["T3", "smoke", "30", "30", "0", "0", "0", "0", "0", "0", "0"]


@pytest.mark.slow
def test_a_single_run_and_the_same_run_in_a_sweep_are_one(cli):
    one = cli(*ONE)
    assert one.returncode == 0, one.stderr
    ((run_id, record),) = cli.records().items()
    assert f"{run_id}: finished" in one.stdout and record["cell"] == {"row": "a0_5", "column": "ni"}
    sweep = cli("-m", *ONE[:3], "alpha=0.5,0.25", "seed=0")
    assert "2 runs, 1 done before, 1 to do" in sweep.stdout
    assert cli.records()[run_id] == record


@pytest.mark.slow
def test_sigkill_and_resume_end_bit_for_bit_as_the_uninterrupted_run(cli, tmp_path):
    words = (
        "table=T3",
        "profile=smoke",
        "column=cifar10",
        "alpha=0.5",
        "seed=3",
        "epochs=12",
        "data.limit_train=1000",
        "threads=1",
    )
    run = cli.start(*words, "checkpoint_every=0")
    found = cli.wait_for("T3/*/checkpoint.*.pt")
    time.sleep(0.5)
    run.kill()
    run.wait()
    assert found and not cli.records(), "killed before its end"
    again = cli(*words)
    assert again.returncode == 0 and ": goes on from step " in again.stderr
    (resumed,) = cli.records().values()
    cli.runs = tmp_path / "straight"
    assert cli(*words).returncode == 0
    (straight,) = cli.records().values()
    assert resumed["time"]["resumed"] == 1 and straight["time"]["resumed"] == 0
    for key in ("run_id", "metrics", "curves", "weights", "wrong", "steps"):
        assert resumed[key] == straight[key], key
    assert not list(cli.runs.glob("T3/*/checkpoint.*"))


@pytest.mark.slow
def test_a_killed_population_resumes_too(cli, tmp_path):
    words = (
        "-m",
        "table=T3",
        "profile=smoke",
        "column=ni",
        "epochs=40",
        "data.limit_train=1000",
        "hydra.launcher.n_jobs=1",
    )
    run = cli.start(*words, "checkpoint_every=0", start_new_session=True)
    found = cli.wait_for("T3/shards/*/checkpoint.*.pt")
    time.sleep(0.5)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert found and not cli.records()
    time.sleep(1)  # the worker process notices that its parent is gone
    assert cli(*words).returncode == 0
    resumed = cli.records()
    cli.runs = tmp_path / "straight"
    assert cli(*words).returncode == 0
    straight = cli.records()
    assert resumed.keys() == straight.keys() and len(straight) == 10
    assert {r["time"]["resumed"] for r in resumed.values()} == {1}
    for run_id, r in resumed.items():
        assert [r[k] for k in ("metrics", "curves", "weights")] == [
            straight[run_id][k] for k in ("metrics", "curves", "weights")
        ]


@pytest.mark.slow
def test_damaged_checkpoint_and_record_are_done_again(cli):
    words = ("table=T3", "profile=smoke", "column=ni", "alpha=0.5", "seed=0")
    assert cli(*words).returncode == 0
    ((run_id, record),) = cli.records().items()
    path = cli.runs / "T3" / run_id / "record.json"
    path.write_bytes(path.read_bytes()[:-30])
    (path.parent / "checkpoint.0123456789abcdef.pt").write_bytes(b"PK\x03\x04 truncated")
    again = cli(*words)
    assert again.returncode == 0 and f"{run_id}: finished" in again.stdout
    assert cli.records()[run_id]["metrics"] == record["metrics"] and not list(path.parent.glob("checkpoint*"))


@pytest.mark.slow
def test_two_processes_on_one_sweep_do_every_run_once(cli):
    words = (
        "-m",
        "table=T3",
        "profile=smoke",
        "column=cifar10",
        "population=1",
        "hydra.launcher.n_jobs=1",
        "alpha=1,0.5,0.25,0.1",
    )
    both = [cli.start(*words) for _ in range(2)]
    out = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], out
    assert len(cli.records()) == 4 and not (cli.runs / "T3" / "superseded").exists()


def own_module(folder: Path, body: str) -> dict[str, str]:
    (folder / "mylayers.py").write_text(body)
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


LAYERS = """
from torch import nn
class Scale(nn.Module):
    def __init__(self, num_features, size=1.0):
        super().__init__()
        self.size = size
    def forward(self, x):
        return x * self.size
class Broken(nn.BatchNorm1d):
    count = 0
    def forward(self, x):
        Broken.count += self.training
        if Broken.count > 6:
            raise RuntimeError("out of luck")
        return super().forward(x)
class Exploding(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.weight = nn.Parameter(__import__("torch").ones(()))
    def forward(self, x):
        return x * self.weight * 1e30
"""


@pytest.mark.slow
def test_a_users_own_layer_runs_without_editing_the_project(cli, tmp_path):
    cli.env |= own_module(tmp_path, LAYERS)
    done = cli(
        "-m",
        "table=T3",
        "profile=smoke",
        "column=mnist,cifar10",
        "norm=custom",
        "norm.name=mylayers.Scale",
        "+norm.options.size=0.5,2",
    )
    assert done.returncode == 0, done.stderr
    found = [
        (r["cell"]["row"], r["cell"]["column"], r["config"]["norm"]["options"]["size"])
        for r in cli.records().values()
    ]
    assert set(found) == {("mylayers.Scale", c, size) for c in ("mnist", "cifar10") for size in (0.5, 2)}


@pytest.mark.slow
def test_a_failing_run_leaves_the_others_and_is_tried_again(cli, tmp_path):
    cli.env |= own_module(tmp_path, LAYERS)
    sweep = cli(
        "-m",
        "table=T3",
        "profile=smoke",
        "column=ni",
        "norm=custom",
        "norm.name=mylayers.Broken,mylayers.Scale",
    )
    assert sweep.returncode == 1 and "1 failed, 1 finished" in sweep.stdout, sweep.stdout + sweep.stderr
    (failed,) = [r for r in cli.records().values() if r["status"] == "failed"]
    assert "out of luck" in failed["error"] and failed["metrics"] == {} and failed["run_id"] in sweep.stderr
    (tmp_path / "mylayers.py").write_text(LAYERS.replace("Broken.count > 6", "False"))
    again = cli(
        "-m",
        "table=T3",
        "profile=smoke",
        "column=ni",
        "norm=custom",
        "norm.name=mylayers.Broken,mylayers.Scale",
    )
    assert again.returncode == 0 and "1 done before, 1 to do" in again.stdout
    assert {r["status"] for r in cli.records().values()} == {"finished"}
    assert len(list((cli.runs / "T3" / "superseded").iterdir())) == 1


TIMED = """
from torch import nn

class UncompletedJobError(RuntimeError):  # as submitit's, which it raises in the job at a time limit
    pass

class Late(nn.BatchNorm1d):
    count = 0
    def forward(self, x):
        Late.count += self.training
        if Late.count > 60:
            raise UncompletedJobError("timed out")
        return super().forward(x)
"""


@pytest.mark.slow
def test_a_time_limit_is_an_interruption_and_keeps_the_checkpoint(cli, tmp_path):
    cli.env |= own_module(tmp_path, TIMED)
    custom = ("norm=custom", "norm.name=mylayers.Late", "epochs=100", "checkpoint_every=0")
    done = cli("table=T3", "profile=smoke", "column=ni", "seed=0", *custom)
    assert done.returncode == 130 and "interrupted" in done.stdout, done.stderr
    assert list(cli.runs.glob("T3/*/checkpoint.*.pt")) and not cli.records()


@pytest.mark.slow
def test_divergence_is_a_result_and_not_retried(cli, tmp_path):
    cli.env |= own_module(tmp_path, LAYERS)
    words = (
        "table=T3",
        "profile=smoke",
        "column=ni",
        "norm=custom",
        "norm.name=mylayers.Exploding",
        "optimizer.lr=1000",
    )
    one = cli(*words)
    assert one.returncode == 0, one.stderr
    (record,) = cli.records().values()
    assert (
        record["status"] == "diverged"
        and record["diverged_epoch"] == 1
        and record["metrics"]["test_error"] == 100.0
    )
    assert "done before" in cli(*words).stdout


@pytest.mark.slow
def test_a_normaliser_that_does_not_fit_is_left_out_with_one_line_why(cli):
    sweep = cli("-m", "table=T3", "profile=smoke", "column=ni", "norm=instance,batch")
    assert sweep.returncode == 0 and "1 finished" in sweep.stdout
    (line,) = [x for x in sweep.stderr.splitlines() if "does not fit" in x]
    assert line.startswith("norm=instance does not fit model=mlp") and line.endswith("; left out")
    only = cli("-m", "table=T3", "profile=smoke", "column=ni", "norm=instance")
    assert only.returncode == 2
    one = cli("table=T3", "profile=smoke", "column=ni", "norm=instance")
    assert one.returncode == 2 and one.stderr.startswith("norm=instance does not fit")


@pytest.mark.slow
def test_a_users_own_pictures(cli, tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("test", 10)):
        for c, level in (("dark", 40), ("light", 200)):
            folder = tmp_path / "pictures" / part / c
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(level - 30, level + 30, (20, 24, 3)).astype(np.uint8)).save(
                    folder / f"{i}.png"
                )
    words = (
        "table=T3",
        "profile=smoke",
        "data=folder",
        f"data.path={tmp_path / 'pictures'}",
        "data.val_fraction=0.2",
        "batch_size=10",
        "alpha=1",
    )
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    (record,) = cli.records().values()
    assert record["data"]["n_test"] == 20 and record["cell"]["column"] == "folder"


def harm_class(base: Path) -> str:
    (base / "train" / "birds").mkdir()
    return "birds has no pictures"


def harm_picture(base: Path) -> str:
    path = base / "train" / "light" / "0.png"
    path.write_bytes(path.read_bytes()[:300])
    return "0.png cannot be read as a picture"


def harm_path(base: Path) -> str:
    shutil.rmtree(base)
    return "does not exist"


@pytest.mark.parametrize("harm", [harm_class, harm_picture, harm_path])
@pytest.mark.parametrize(
    "typed", ["epochs=1", "model.width=0.5", "norm=group", "optimizer.options.momentum=0"]
)
@pytest.mark.parametrize("multirun", [False, True], ids=["run", "sweep"])
def test_a_folder_that_cannot_be_used_is_one_line(harm, typed, multirun, tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for c in ("dark", "light"):
            (tmp_path / "p" / part / c).mkdir(parents=True)
            for i in range(4):
                picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
                picture.save(tmp_path / "p" / part / c / f"{i}.png")
    says = harm(tmp_path / "p")
    monkeypatch.setattr(sys, "argv", ["python -m experiments"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    status = command(
        [*(("-m",) if multirun else ()), "table=T1", "profile=smoke", "row=bn_baseline", "data=folder",
         f"data.path={tmp_path / 'p'}", f"data.cache={tmp_path / 'cache'}", "data.options.size=16",
         "data.options.channels=3", typed, f"runs={tmp_path / 'runs'}", "report=false"]
    )  # fmt: skip
    err = [x for x in capsys.readouterr().err.splitlines() if x.strip()]
    assert status == 2 and len(err) == 1 and says in err[0], err
    assert not list((tmp_path / "runs").rglob("record*"))


@pytest.mark.slow
def test_ctrl_c_finishes_the_checkpoint_and_says_how_to_go_on(cli):
    words = (
        "table=T3",
        "profile=smoke",
        "column=cifar10",
        "alpha=0.5",
        "epochs=500",
        "data.limit_train=1000",
    )
    run = cli.start(*words)
    assert cli.wait_for("T3/jobs/*.json")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "the same command goes on" in out, (out, err)
    assert len(list(cli.runs.glob("T3/*/checkpoint.*.pt"))) == 1 and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])  # one works in the sweep's own process
def test_ctrl_c_in_a_sweep_stops_its_workers(cli, workers):
    words = (
        "-m",
        "table=T3",
        "profile=smoke",
        "column=cifar10",
        "population=1",
        "epochs=500",
        "data.limit_train=1000",
        f"hydra.launcher.n_jobs={workers}",
    )
    run = cli.start(*words, start_new_session=True)
    assert cli.wait_for("T3/jobs/*.json")
    time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the parent and its workers alike
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130 and "run the same command again" in err, (out, err)
    assert len(list(cli.runs.glob("T3/*/checkpoint.*.pt"))) >= 1 and not cli.records()


@pytest.mark.slow
def test_ctrl_c_with_more_workers_than_jobs(cli):
    """An idle worker gets the terminal's SIGINT too; it must not take the working one along."""
    words = ("-m", "table=T3", "profile=smoke", "column=cifar10", "alpha=0.5", "data.limit_train=1000")
    run = cli.start(*words, "epochs=500", "hydra.launcher.n_jobs=3", start_new_session=True)
    assert cli.wait_for("T3/jobs/*.json")
    time.sleep(0.5)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130 and "1 interrupted" in out and "Traceback" not in err, (out, err)
    assert len(list(cli.runs.glob("T3/*/checkpoint.*.pt"))) == 1


@pytest.mark.slow
def test_a_killed_worker_is_told_in_one_line_and_the_next_sweep_goes_on(cli):
    words = ("-m", "table=T3", "profile=smoke", "column=cifar10", "population=1", "alpha=1,0.5")
    long = (*words, "epochs=500", "data.limit_train=1000", "checkpoint_every=0")
    run = cli.start(*long)
    found = cli.wait_for("T3/*/checkpoint.*.pt")
    beat = next(cli.runs.glob("T3/jobs/*.json"))
    os.kill(json.loads(beat.read_bytes())["pid"], signal.SIGKILL)  # as the kernel does when memory is short
    out, err = run.communicate(timeout=120)
    assert run.returncode == 1 and "interrupted" in out and "Traceback" not in err, (out, err)
    assert found and "the launcher gave up" in err and "run the same command again" in err


BAD = [
    (("table=T99",), "T99"),
    (("alpha=1",), "no table given"),
    (("table=T3", "profile=fast"), "fast"),
    (("table=T3", "profile=null"), "profile=null: choose one of cpu, paper, quick, smoke"),
    (("table=T3", "model=null"), "model=null: choose one of"),
    (("table=T3", "data=imagenet"), "imagenet"),
    (("table=T3", "alpha=2"), "alpha=2"),
    (("table=T3", "alpha=0.1,0.2"), "-m"),
    (("table=T3", "alpha="), "alpha"),
    (("table=T3", "alpha=[1"), "alpha"),
    (("table=T3", "nonsense"), "nonsense"),
    (("table=T3", "learning_rate=1"), "learning_rate"),
    (("table=T3", "device=abacus"), "device=abacus"),
    (("table=T3", "population=0"), "population=0"),
    (("table=T3", "checkpoint_every=soon"), "checkpoint_every=soon"),
    (("table=T3", "data.limit_train=0"), "data.limit_train=0"),
    (("table=T3", "column=mnist,foo"), "column=mnist,foo"),
    (("table=T3", "column=ni", "profile=smoke", "optimizer.name=Foo"), "optimizer.name=Foo: cannot be built"),
    (("table=T3", "column=ni", "profile=smoke", "+norm.options.eps=-1"), "eps=-1: give a number above 0"),
    (("table=T3", "--foo"), "--foo"),
    (("table=T3", "norm=custom", "norm.name=no.such.Layer"), "no.such"),
    (("table=T3", "data=folder", "data.path=/nowhere"), "/nowhere"),
]


@pytest.mark.parametrize("multirun", [False, True], ids=["run", "sweep"])
@pytest.mark.parametrize(("words", "what"), BAD, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_bad_input_is_one_line_and_status_2(words, what, multirun, tmp_path, monkeypatch, capsys):
    """In this process, where a start takes no seconds; those below start one of their own."""
    if multirun and what == "-m":
        return  # a sweep is where several values belong
    if what == "column=mnist,foo" and multirun:
        what = "column=foo: unknown column"
    monkeypatch.setattr(sys, "argv", ["python -m experiments"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    status = command([*(("-m",) if multirun else ()), *words, f"runs={tmp_path / 'runs'}", "report=false"])
    err = capsys.readouterr().err
    lines = [x for x in err.splitlines() if x.strip()]
    assert status == 2 and len(lines) == 1 and what in lines[0], err
    assert not list(tmp_path.glob("runs/T3/*/record.json"))


@pytest.mark.slow
def test_a_missing_data_set_says_what_where_from_and_where_to(cli, tmp_path):
    done = cli(
        "table=T3",
        "profile=cpu",
        "column=ni",
        f"data.root={tmp_path / 'nothing'}",
        f"data.cache={tmp_path / 'cache'}",
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert all(w in done.stderr for w in ("kddcup99", "http", str(tmp_path / "nothing"), "licence"))


@pytest.mark.slow
def test_an_unwritable_store_loses_nothing_and_starts_nothing(cli, tmp_path):
    (tmp_path / "file").write_text("")
    cli.runs = tmp_path / "file" / "runs"
    for mode in ((), ("-m",)):
        done = cli(*mode, *ONE)
        assert done.returncode == 2 and "runs=" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_explains_the_words_and_cfg_shows_the_resolved_point(cli):
    shown = subprocess.run(
        [sys.executable, "-m", "experiments", "--help"], capture_output=True, text=True, cwd=ROOT, env=cli.env
    )
    for word in (
        "table",
        "profile",
        "settings",
        "variant",
        "data",
        "norm",
        "model",
        "optimizer",
        "tracking",
        "hydra/launcher",
        "rerun",
    ):
        assert word in shown.stdout
    head = subprocess.run(
        f"'{sys.executable}' -m experiments --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=cli.env,
    )
    assert head.stdout.startswith("Re-runs the tables") and not head.stderr
    cfg = cli("--cfg", "job", "table=T3", "column=ni", "alpha=0.5")
    assert cfg.returncode == 0 and "kdd_keel" in cfg.stdout and "alpha: 0.5" in cfg.stdout


def test_a_setting_that_there_is_not_is_one_line(cli):
    done = cli("-m", "table=T3", "profile=smoke", "x=1")
    assert done.returncode == 2
    told = "x: no such setting (python -m experiments table=T3 --help lists those of a table)"
    assert done.stderr == f"{told}\n"


def test_a_folder_that_may_not_be_read_is_one_line(monkeypatch, capsys):
    from experiments import __main__ as program

    def refused(argv):
        raise PermissionError(13, "Permission denied", "/there/T3/paper/x.json")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which main sets: put back afterwards
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    monkeypatch.setattr(program, "_main", refused)
    assert program.main([]) == 2
    told = capsys.readouterr().err
    assert told == "/there/T3/paper/x.json: Permission denied; give yourself the right, or another folder\n"
