"""From trials to the one that counts: matching, ties, what diverged or failed, deviations of a search."""

import json
import math

import pandas as pd
import pytest

from reports import published, selection, store
from reports.analysis import analyse
from tests.reports import synthetic_snn as make

T5, T6 = published.load("T5"), published.load("T6")


def loaded(tmp_path, records, noted):
    make.write(tmp_path / "runs", noted, records)
    return store.load(tmp_path / "runs")


def selected(tmp_path, records, noted=None):
    noted = noted or make.grid("T5", sets=["iris", "wine"])
    found = loaded(tmp_path, records, noted)
    pub = published.load(noted["table"])
    return selection.select(selection.matched(found.frame, found.grid[pub.table], "quick", pub))


def trial(val, row="snn", seed=0, status="finished", **changes):
    rec = make.record("T5", row, seed, status=status, **changes)
    return {**rec, "metrics": {**rec["metrics"], "val_error": val}} if status != "failed" else rec


def winner(runs):
    (found,) = runs[runs["match"] != "trial"].to_dict("records")
    return found


# ------------------------------------------------------------------------------------------------- selection


def test_least_validation_error_wins(tmp_path):
    records = [trial(v, optimizer__lr=lr) for v, lr in ((5.0, 0.01), (4.0, 0.1))]
    found = winner(selected(tmp_path, records))
    assert found["config.optimizer.lr"] == 0.1 and found["match"] == "cell"
    assert (found["trials"], found["planned"], found["trials_diverged"]) == (
        2,
        8,
        0,
    )  # 2 depths, rates, dropouts


@pytest.mark.parametrize(
    ("a", "b"),  # a wins a tie
    [
        ({"model__layers": 4}, {"model__layers": 2}),
        ({"model__layers": 4, "optimizer__lr": 0.1}, {"model__layers": 2, "optimizer__lr": 0.01}),
        ({"optimizer__lr": 0.01}, {"optimizer__lr": 0.1}),
        ({"optimizer__lr": 0.01, "model__dropout": 0.0}, {"optimizer__lr": 0.1, "model__dropout": 0.05}),
        ({"model__dropout": 0.05}, {"model__dropout": 0.0}),
    ],
)
def test_ties_more_layers_then_lower_rate_then_more_dropout(tmp_path, a, b):
    noise = 1e-9  # floating-point noise must not break a tie
    records = [trial(5.0 - noise, **b), trial(5.0, **a)]
    assert winner(selected(tmp_path, records))["run_id"] == records[1]["run_id"]


@pytest.mark.parametrize(
    ("row", "a", "b"),  # a wins a tie
    [
        ("svm", {"model__C": 0.5, "model__gamma": 0.125}, {"model__C": 2.0, "model__gamma": 0.03125}),
        ("svm", {"model__gamma": 0.03125}, {"model__gamma": 0.125}),
        ("forest", {"model__max_features": 0.1}, {"model__max_features": 0.3}),
    ],
)
def test_ties_of_estimators_go_to_the_smoother_one(tmp_path, row, a, b):
    records = [trial(5.0, row, **b), trial(5.0, row, **a)]
    noted = widened(row, **{key.replace("__", "."): [b[key], value] for key, value in a.items()})
    assert winner(selected(tmp_path, records, noted))["run_id"] == records[1]["run_id"]


def widened(row, **axes):
    """The grid with these axes of a row's."""
    noted = make.grid("T5", sets=["iris", "wine"])
    for point in noted["profiles"]["quick"]["points"]:
        if point["row"] == row:
            point["axes"] |= axes
            for key in axes:
                point["config"]["model"].pop(key.removeprefix("model."), None)
    return noted


def test_the_last_tie_is_the_run_id(tmp_path):
    records = [trial(5.0, model__units=u) for u in (32, 64)]
    found = winner(selected(tmp_path, records, widened("snn", **{"model.units": [32, 64]})))
    assert found["run_id"] == min(r["run_id"] for r in records)


def test_a_diverged_trial_loses_and_a_failed_one_has_no_part(tmp_path):
    records = [
        trial(1.0, status="diverged", optimizer__lr=0.1),
        trial(9.0),
        trial(None, status="failed", model__layers=4),
    ]
    found = winner(selected(tmp_path, records))
    assert found["metrics.val_error"] == 9.0 and found["status"] == "finished"
    assert (found["trials"], found["trials_diverged"], found["trials_failed"]) == (2, 1, 1)


def test_where_all_diverged_that_is_the_outcome_and_failed_alone_is_none(tmp_path):
    all_diverged = [trial(1.0, status="diverged", optimizer__lr=lr) for lr in (0.01, 0.1)]
    assert winner(selected(tmp_path / "a", all_diverged))["status"] == "diverged"
    runs = selected(tmp_path / "b", [trial(None, status="failed")])
    assert list(runs["match"]) == ["trial"]


def test_a_validation_error_that_is_no_number_is_last(tmp_path):
    records = [trial(None), trial(99.0, optimizer__lr=0.1)]
    assert winner(selected(tmp_path, records))["metrics.val_error"] == 99.0


def test_one_is_selected_for_each_set_seed_row_and_variant(tmp_path):
    noted = make.grid("T5", sets=["iris", "wine"], seeds=(0, 1))
    records = list(make.trials(noted))
    records += [make.record("T5", "batch", s, placement="before", data__options__set=d, optimizer__lr=lr)
                for s in (0, 1) for d in ("iris", "wine") for lr in (0.01, 0.1)]  # fmt: skip
    runs = selected(tmp_path, records, noted)
    chosen = runs[runs["match"] != "trial"]
    assert len(chosen[chosen["match"] == "cell"]) == 9 * 2 * 2
    variants = chosen[chosen["match"] == "variant"]
    assert set(variants["label"]) == {"placement=before"} and len(variants) == 4
    assert (
        set(variants["row"]) == {"batch"}
        and set(variants["trials"]) == {2}
        and set(variants["planned"]) == {4}
    )
    assert len(runs) == len(records)


# -------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("row", "changes", "kind", "label"),
    [
        ("batch", {}, "cell", ""),
        ("batch", {"statistics": "never"}, "variant", "statistics=never"),
        ("layer", {"placement": "before"}, "variant", "placement=before"),
        ("group", {}, "norm", "group"),
        ("group", {"placement": "before"}, "norm", "group, placement=before"),
        ("batch", {"optimizer__lr": 0.03}, None, ""),  # a user's own: no point of the grid
        ("snn", {"model__units": 128}, None, ""),
        ("snn", {"model__dropout": 0.1}, None, ""),
        ("snn", {"epochs": 3}, None, ""),
        ("snn", {"data__options__set": "glass"}, None, ""),
        ("snn", {"data__options__fold": 1}, None, ""),
        ("snn", {"data__name": "uci"}, None, ""),
        ("batch", {"norm__options": {"eps": 0.1}}, None, ""),
    ],
)
def test_what_a_trial_fills(tmp_path, row, changes, kind, label):
    noted = make.grid("T5", sets=["iris", "wine"])
    found = loaded(tmp_path, [make.record("T5", row, **changes)], noted)
    runs = selection.matched(found.frame, found.grid["T5"], "quick", T5)
    assert [(r["kind"], r["label"]) for r in runs.to_dict("records")] == ([(kind, label)] if kind else [])


def test_role_is_not_looked_at(tmp_path):
    records = [{**make.record("T5", "snn"), "role": role} for role in ("cell",)]
    assert len(selected(tmp_path, records)) == 1


def test_patterns_that_share_a_row_add_up(tmp_path):
    """ResNet's search has plain blocks and, with a bottleneck, narrow ones: two patterns, one search."""
    noted = make.grid("T5", rows=["resnet"], sets=["iris"])
    (plain,) = noted["profiles"]["quick"]["points"]
    narrow = {**plain, "axes": {**plain["axes"], "model.form": ["diavolo"], "model.bottleneck": [0.25, 0.5]}}
    noted["profiles"]["quick"]["points"].append(narrow)
    records = [
        make.record("T5", "resnet"),
        make.record("T5", "resnet", model__form="diavolo", model__bottleneck=0.25),
        make.record("T5", "resnet", model__form="diavolo", model__bottleneck=0.3),
    ]
    runs = selected(tmp_path, records, noted)
    assert len(runs) == 2 and set(runs["planned"]) == {4 + 8}


def test_points_without_axes_are_patterns_too(tmp_path):
    noted = make.grid("T5", rows=["svm"], sets=["iris"])
    points = []
    for c in (0.5, 2.0):
        cfg = make.config("T5", "svm", model__C=c)
        del cfg["seed"]
        points.append({"row": "svm", "column": "iris", "config": cfg})
    noted["profiles"]["quick"]["points"] = points
    runs = selected(tmp_path, [make.record("T5", "svm", model__C=c) for c in (0.5, 2.0, 8.0)], noted)
    assert len(runs) == 2 and set(runs["planned"]) == {2}


def test_depth_is_the_column_of_table_6_not_searched(tmp_path):
    noted = make.grid("T6", rows=["snn"], seeds=[0])
    runs = selected(tmp_path, make.trials(noted), noted)
    chosen = runs[runs["match"] == "cell"]
    assert sorted(chosen["column"]) == sorted(f"d{d}" for d in make.DEPTHS)
    assert set(chosen["planned"]) == {4} and set(chosen["trials"]) == {4}


def test_an_empty_store_and_an_empty_grid(tmp_path):
    assert len(selected(tmp_path / "a", [])) == 0
    noted = {**make.grid("T5"), "profiles": {}}
    assert len(selected(tmp_path / "b", [make.record("T5", "snn")], noted)) == 0


def test_several_parts_in_one_column_are_averaged_where_all_are_there():
    rows = [("iris", 0, "finished", 80.0), ("wine", 0, "diverged", 99.0), ("iris", 1, "finished", 70.0)]
    same = {"kind": "cell", "label": "", "row": "snn", "column": "d2", "data.n_test": 10.0}
    same |= {"trials": 4, "trials_diverged": 1, "trials_failed": 0, "planned": 4}
    chosen = pd.DataFrame(
        [
            {**same, "part": part, "seed": seed, "status": status, "metrics.test_auc": auc}
            for part, seed, status, auc in rows
        ]
    )
    (found,) = selection.over_parts(chosen, {"test_auc": 50.0}).to_dict("records")  # seed 1 lacks wine
    assert (found["seed"], found["metrics.test_auc"], found["trials"]) == (0, 65.0, 8)
    assert math.isnan(found["data.n_test"])
    one = chosen[chosen["part"] == "iris"]
    assert selection.over_parts(one, {}) is one


# ------------------------------------------------------------------------------------------------ deviations


def report_of(found, table="T5"):
    facts = published.load(table)
    return analyse(found.frame, found.grid[table], found.paper.get(table, {}), facts, "quick")


def lines(report):
    return {(d["key"], d["paper"], d["ran"], d["rows"]) for d in report.deviations.to_dict("records")}


def paper_points(noted):
    return make.grid("T5", layers=(2, 4, 8, 16), rates=(0.01, 0.1), profiles=["paper"])["profiles"]["paper"]


def test_a_search_is_compared_axis_by_axis(tmp_path):
    noted = make.grid("T5", sets=["iris"], seeds=[0])
    noted["profiles"]["paper"] = paper_points(noted)
    for point in noted["profiles"]["paper"]["points"]:
        if "model.layers" in point["axes"]:
            point["axes"]["model.units"] = [256, 512, 1024]
        point["config"]["data"]["name"] = "uci"
    report = report_of(loaded(tmp_path, make.trials(noted), noted))
    networks = "snn, layer, msra, highway, resnet, weight, batch"
    assert lines(report) == {
        ("data.name", "uci", "keel", "all"),
        ("model.layers", "2, 4, 8, 16", "2, 4", networks),
        ("model.units", "256, 512, 1024", "64", networks),
    }


def test_paper_configs_serve_where_the_grid_has_no_paper_profile(tmp_path):
    noted = make.grid("T5", rows=["snn"], sets=["iris"], seeds=[0])
    told = make.config(
        "T5", "snn", model__layers=[2, 4, 32], optimizer__lr=[0.01, 0.1], model__dropout=[0.05, 0.0]
    )
    del told["seed"]
    folder = tmp_path / "runs" / "T5" / "paper"
    folder.mkdir(parents=True)
    (folder / "k.json").write_text(json.dumps({"config": told}))
    report = report_of(loaded(tmp_path, make.trials(noted, paper="k"), noted))
    assert lines(report) == {("model.layers", "2, 4, 32", "2, 4", "snn")}


def test_no_paper_config_is_said(tmp_path):
    noted = make.grid("T5", rows=["snn", "svm"], sets=["iris"], seeds=[0])
    assert lines(report_of(loaded(tmp_path, make.trials(noted), noted))) == {
        ("config", "not stored", "-", "all")
    }
