"""Tables 5 and 6: their grids, the cells of a run, SVM and forest, and sweeps from start to end."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from sklearn.svm import SVC

from data import keel
from experiments import config, grid, job, status, sweep
from experiments.config import BadInput
from experiments.table_05_snn import State, cell, check, train

GOLDEN = Path(__file__).with_name("golden_run_ids_of_trials.json")

# Settings in the published grids as the fact sheet counts them; of residual blocks the bottleneck has no
# meaning in rectangular ones, and a highway network has one width.
PUBLISHED = {"snn": 216, "msra": 216, "batch": 108, "weight": 108, "layer": 108, "highway": 36, "resnet": 135}


def sizes(composed, table, profile):
    found = Counter()
    for pattern in grid.patterns([f"table={table}", f"profile={profile}"], composed):
        sets = len(pattern.axes.get("data.options.set", [0]))
        found[pattern.row] += pattern.size // sets
    return found


@pytest.mark.slow
def test_the_paper_profile_has_the_published_grids(composed):
    found = sizes(composed, "T5", "paper")
    assert {row: found[row] for row in PUBLISHED} == PUBLISHED
    assert len(grid.patterns(["table=T5", "profile=paper"], composed)[0].axes["data.options.set"]) == 121
    depth = sizes(composed, "T6", "paper")  # 7 depths, 3 rates, 3 weights of L2
    assert (depth["snn"], depth["batch"], depth["layer"]) == (7 * 9 * 8, 7 * 9 * 4, 7 * 9 * 8)
    assert depth["resnet"] == 6 * 9 * 2 * 3
    assert (depth["msra"], depth["weight"], depth["highway"]) == (7 * 9 * 8, 7 * 9 * 8, 7 * 9 * 2)


@pytest.mark.parametrize("table, profile", [("T5", "smoke"), ("T6", "smoke"), ("T6", "quick")])
def test_patterns_are_the_points(composed, table, profile):
    """What grid.json notes in a few lines is the grid that runs, but for variants."""
    words = [f"table={table}", f"profile={profile}"]
    noted = {config.digest(c) for p in grid.patterns(words, composed) for c in p.configs()}
    ran, primary = set(), composed(words).primary
    for point in grid.points(words, composed):
        run = config.plain(point.run)
        seed = run.pop("seed")
        own = all(run[key] in (None, value) for key, value in primary.items())
        if own and seed == 0:
            ran.add(config.digest(run))
    assert ran == noted


def test_quick_has_sets_that_ship_and_both_places_of_the_norm(composed):
    points = grid.points(["table=T5", "profile=quick"], composed)
    assert {p.run.data.options["set"] for p in points} <= set(keel.set_names())
    assert {p.run.seed for p in points} == {0, 1, 2}
    places = {(p.row, p.run.placement) for p in points}
    assert {("batch", "after"), ("batch", "before"), ("layer", "after"), ("layer", "before")} <= places
    rows = {p.row for p in points}
    assert rows == {"snn", "msra", "layer", "batch", "weight", "highway", "resnet", "svm", "forest"}


def test_a_row_or_another_normaliser_is_chosen_by_name(composed):
    words = ["table=T5", "profile=smoke"]
    assert {p.row for p in grid.points([*words, "row=snn,svm"], composed)} == {"snn", "svm"}
    other = grid.points([*words, "norm=rms"], composed)
    assert {p.row for p in other} == {"rms"} and all(p.run.placement == "after" for p in other)
    with pytest.raises(BadInput, match="row=cnn: unknown row"):
        grid.points([*words, "row=cnn"], composed)


def test_a_table_of_ones_own_meets_every_method(composed, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("a,b,kind\n" + "".join(f"{i},{-i * i},{'xy'[i % 2]}\n" for i in range(40)))
    words = ["table=T5", "profile=smoke", "data=table", f"data.path={path}", "data.options.target=kind"]
    points = grid.points(words, composed)
    assert {p.row for p in points} >= {"snn", "batch", "svm", "forest"}
    assert {(p.column, p.run.data.name) for p in points} == {("table", "table")}
    assert all("set" not in p.run.data.options for p in points)


def test_golden_run_ids(composed):
    """Ids are how finished runs are found again: a change of this file makes everybody's results unfindable,
    so it is a decision.
    """
    found = {}
    for table in ("T5", "T6"):
        for p in grid.points([f"table={table}", "profile=smoke"], composed):
            m = p.run.model
            given = {k: v for k, v in vars(m).items() if v is not None and k not in ("name", "form", "units")}
            settings = " ".join(f"{k}={v:g}" for k, v in given.items())
            found[f"{table} {p.column} {p.row} {settings}"] = config.run_id(p.run, "0123456789abcdef")
    assert len(found) == 44 + 14
    assert found == json.loads(GOLDEN.read_text())


def test_members_of_a_job_differ_in_seed_rate_and_dropout_alone(composed):
    points = grid.points(["table=T5", "profile=quick", "row=snn", "data.options.set=iris"], composed)
    jobs = grid.jobs(points)
    assert sorted(map(len, jobs)) == [12, 12]  # of each depth: 3 seeds, 2 rates, 2 dropout rates
    assert all({p.run.model.layers for p in job} in ({2}, {8}) for job in jobs)


def test_the_papers_config_has_the_lists_of_the_search(composed):
    (point,) = grid.points(
        [
            "table=T5",
            "profile=smoke",
            "row=snn",
            "data.options.set=iris",
            "model.layers=2",
            "model.dropout=0.0",
        ],
        composed,
    )
    paper = grid.paper_config(point, composed)
    assert paper["model"]["units"] == [1024, 512, 256] and paper["model"]["layers"] == [2, 3, 4, 8, 16, 32]
    assert paper["norm"]["name"] == "snn" and paper["epochs"] == 100 and "set" not in paper["data"]["options"]


# ---- SVM and forest ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iris():
    from data import load

    return load("keel", set="iris", fold=0, val_fraction=0.15)


def classical(composed, row, *words):
    points = grid.points(
        ["table=T5", "profile=smoke", f"row={row}", "data.options.set=iris", *words], composed
    )
    return [p.run for p in points]


def test_svm_is_scikit_learns(composed, iris):
    runs = classical(composed, "svm", "model.C=1,100", "model.gamma=0.1")
    state = State(runs, iris, torch.device("cpu"))
    (*_, (step, metrics)) = train(state)
    assert step == 1
    for k, run in enumerate(runs):
        model = SVC(C=run.model.C, gamma=run.model.gamma).fit(iris.x_train.numpy(), iris.y_train.numpy())
        expected = 100 * (model.predict(iris.x_test.numpy()) != iris.y_test.numpy()).mean()
        assert metrics["test_error"][k] == pytest.approx(expected)


def test_forest_depends_on_its_seed_and_one_class_is_predicted(composed, iris):
    runs = classical(composed, "forest", "seed=0,0,1")
    (*_, (_, a)), (*_, (_, b)) = (train(State(runs, iris, torch.device("cpu"))) for _ in range(2))
    assert a == b
    one_class = dataclasses.replace(iris, y_train=torch.zeros_like(iris.y_train))
    (*_, (_, metrics)) = train(State(runs[:1], one_class, torch.device("cpu")))
    assert metrics["train_loss"] == [0.0] and 0 < metrics["test_error"][0] < 100


def test_what_an_svm_has_no_use_for_makes_no_other_run(composed):
    (run,) = classical(composed, "svm")
    assert cell(run) == ("svm", "iris")
    assert run.epochs == 1 and run.placement is None and run.optimizer.lr == 0.0
    assert check(run) == run


def test_a_fit_stopped_at_its_end_is_not_done_again(composed, tmp_path, monkeypatch):
    words = ["table=T5", "profile=smoke", "row=svm", "data.options.set=iris"]
    (point,) = grid.points(words, composed)
    point.member["paper"] = None
    cfg = composed([*grid.job_overrides([point]), f"runs={tmp_path}"])
    with monkeypatch.context() as stopped:
        stopped.setattr(job.Job, "asked_to_stop", lambda self: True)
        assert set(job.run(cfg).values()) == {"interrupted"}
    assert list(tmp_path.glob("T5/*/checkpoint.*.pt"))
    assert set(job.run(cfg).values()) == {"finished"}
    (path,) = tmp_path.glob("T5/*/record.json")
    record = json.loads(path.read_bytes())
    assert record["epochs"] == 1 and len(record["curves"]["val_error"]) == 1
    assert record["time"]["resumed"] == 1


# ---- sweeps ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_of_trials_and_its_members_alone(cli, tmp_path):
    """All methods on one set: records, what is done is skipped; a member alone has its id and errors."""
    words = ["table=T5", "profile=smoke", "data.options.set=iris"]
    done = cli("-m", *words)
    assert done.returncode == 0, done.stderr
    records = cli.records("T5")
    assert len(records) == 22 and {r["role"] for r in records.values()} == {"trial"}
    assert {r["cell"]["row"] for r in records.values()} >= {"snn", "svm", "forest", "batch"}
    again = cli("-m", *words)
    assert "22 done before, 0 to do" in again.stdout
    member = next(r for r in records.values() if r["cell"]["row"] == "snn" and r["population"])
    m = member["config"]["model"]
    alone = cli(
        *words, "row=snn", f"model.layers={m['layers']}", f"model.dropout={m['dropout']}", "rerun=all"
    )
    assert alone.returncode == 0, alone.stderr
    single = json.loads((cli.runs / "T5" / member["run_id"] / "record.json").read_bytes())
    assert single["metrics"]["test_error"] == pytest.approx(member["metrics"]["test_error"], abs=5)
    assert len(single["curves"]["act_var_start"]) == m["layers"]


@pytest.mark.slow
def test_folds_train_together_where_they_are_of_one_size(cli):
    """Ten folds of iris (150 rows: all alike) and of wine (178 rows: not), and a member of each alone."""
    words = ["table=T5", "profile=smoke", "row=snn", "model.layers=2", "data.limit_train=null"]
    for name, groups in (("iris", 1), ("wine", 2)):
        mine = [*words, f"data.options.set={name}", f"data.options.fold={','.join(map(str, range(10)))}"]
        done = cli("-m", *mine, "population=100")
        assert done.returncode == 0, done.stderr
        records = [r for r in cli.records("T5").values() if r["config"]["data"]["options"]["set"] == name]
        assert len(records) == 20 and len({r["data"]["fingerprint"] for r in records}) == 10
        sizes = {(r["population"]["id"], r["data"]["n_train"], r["data"]["n_test"]) for r in records}
        assert len(sizes) == len({p for p, _, _ in sizes}) >= groups
        assert len(sizes) == len({r["data"]["n_train"] * 1000 + r["data"]["n_test"] for r in records})
        one = next(r for r in records if r["config"]["data"]["options"]["fold"] == 7)
        alone = cli(*words, f"data.options.set={name}", "data.options.fold=7", "rerun=all",
                    f"model.dropout={one['config']['model']['dropout']}")  # fmt: skip
        assert alone.returncode == 0, alone.stderr
        single = json.loads((cli.runs / "T5" / one["run_id"] / "record.json").read_bytes())
        assert single["data"] == one["data"]
        assert single["curves"]["train_loss"] == pytest.approx(one["curves"]["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_depth_sweep_on_tasks(cli):
    done = cli("-m", "table=T6", "profile=smoke", "row=snn,batch")
    assert done.returncode == 0, done.stderr
    records = list(cli.records("T6").values())
    assert {(r["cell"]["row"], r["cell"]["column"]) for r in records} == {
        (row, column) for row in ("snn", "batch") for column in ("d2", "d4")
    }
    for r in records:
        assert 0 <= r["metrics"]["test_auc"] <= 100 and "test_error" not in r["metrics"]
        assert math.isfinite(r["metrics"]["grad_norm_first_start"])


def test_status_counts_trials(composed):
    noted = sweep.write_grid("T5", composed, None, profile="smoke")
    points = noted["profiles"]["smoke"]["points"]
    assert len({config.digest(c) for p in points for c in status.configs(p)}) == 22 * 2


@pytest.mark.parametrize(
    "words, line",
    [
        (["data.options.set=irish"], "irish"),
        (["model.layers=0", "row=snn"], "model.layers=0: give a number of layers from 1"),
        (["optimizer=adam", "row=snn"], "optimizer=Adam: these tables have plain gradient descent"),
        (["row=snn", "model=tree"], "Could not find 'model/tree'"),
    ],
)
def test_bad_input_is_one_line(cli, words, line):
    done = cli("-m", "table=T5", "profile=smoke", *words)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr and len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.slow
def test_of_a_population_only_the_member_that_diverges_is_recorded_so(cli):
    setting = ("row=msra", "data.options.set=iris", "model.layers=2", "model.dropout=0.0")
    done = cli("-m", "table=T5", "profile=smoke", *setting, "optimizer.lr=0.05,1e30")
    assert done.returncode == 0, done.stderr
    records = cli.records("T5").values()
    for record in records:
        assert record["population"]["members"] >= 2
        lost = record["config"]["optimizer"]["lr"] > 1
        assert record["status"] == ("diverged" if lost else "finished")
        if lost:
            assert record["metrics"]["test_error"] == 100 and record["diverged_epoch"] <= 2
        else:
            assert record["metrics"]["test_error"] < 90 and len(record["curves"]["epoch"]) > 1
    assert {r["status"] for r in records} == {"diverged", "finished"}


def test_a_profile_that_comes_later_is_noted_too(composed, tmp_path):
    """Also where conf/ has not changed since: the reports know of no other grid."""
    for profile in ("smoke", "quick"):
        sweep.write_grid("T6", composed, tmp_path, profile=profile)
    assert json.loads((tmp_path / "grid.json").read_bytes())["profiles"].keys() == {"smoke", "quick"}


def test_grid_json_is_small_for_a_hundred_thousand_trials(composed):
    noted = sweep.write_grid("T5", composed, None, profile="paper")
    points = noted["profiles"]["paper"]["points"]
    assert sum(grid.Pattern(**p).size for p in points) > 100_000
    assert len(json.dumps(noted)) < 60_000
