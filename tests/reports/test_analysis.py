"""From records to cells, labelled rows, verdicts and deviations, on small stores written for each case."""

import math

import numpy as np
import pytest
from scipy import stats

from reports import matching, published, store
from reports.analysis import CELLS, EXTRA, VERDICTS, analyse
from tests.reports.fixtures import make_golden as make

T3 = published.load("T3")
OTHER = {"alpha": None, "reading": None, "initial": None, "unit": None}


@pytest.fixture
def report(tmp_path):
    """Records (and a grid) -> the report of a profile."""

    def made(records, profile="quick", grid=None, papers=True):
        runs = tmp_path / "runs"
        make.write_grid(runs, grid)
        if records:
            make.write_shard(runs, records)
        loaded = store.load(runs)
        paper = loaded.paper["T3"] if papers else {}
        return analyse(loaded.frame, loaded.grid["T3"], paper, T3, profile, loaded.damaged["T3"])

    return made


def cell(found, row, column, metric="test_error"):
    cells = found.cells.set_index(["row", "column", "metric"])
    return cells.loc[(row, column, metric)]


def claim(found, name):
    return next(c for c in found.claims if c.id == name)


# ------------------------------------------------------------------------------------------------ cells


def test_cell_has_the_mean_of_its_seeds(report):
    found = report([make.record("a0_5", "mnist", s, wrong=w) for s, w in enumerate((9, 10, 14))])
    got = cell(found, "a0_5", "mnist")
    errors = np.array([9, 10, 14]) / 4
    assert (got["n"], got["mean"], got["sd"]) == (3, errors.mean(), pytest.approx(errors.std(ddof=1)))
    assert (got["survey"], got["source"]) == (1.84, 1.84)
    assert got["difference"] == pytest.approx(errors.mean() - 1.84)
    assert (got["data"], got["standing"], got["origin"]) == ("mnist5k", "stand-in", "here")
    assert len(got["runs"]) == 3 and got["low"] < errors.mean() < got["high"]


def test_every_printed_and_labelled_number_has_a_line_even_without_runs(report):
    found = report([])
    assert list(found.cells.columns) == CELLS and list(found.extra.columns) == EXTRA
    assert len(found.cells) == 10 * 3 * len(T3.metrics)
    assert (found.cells["n"] == 0).all() and found.cells["mean"].isna().all()
    assert {c.verdict for c in found.claims} == {"not run"}
    epochs = cell(found, "a1", "cifar10", "epoch_best_val")
    assert epochs["survey"] == 45 and math.isnan(epochs["source"])


def test_interval_of_a_cell_contains_the_test_sets_sampling_error(report):
    """Three seeds that agree are no certainty about 400 test examples."""
    records = [make.record("a0_5", "mnist", s, wrong=20) for s in range(3)]
    for r in records:
        r["wrong"] = make.packed(make.mask(20, 0))
    got = cell(report(records), "a0_5", "mnist")
    binomial = stats.norm.isf(0.025) * 100 * math.sqrt(0.05 * 0.95 / 400)
    assert (got["high"] - got["low"]) / 2 == pytest.approx(binomial, rel=0.02)


def test_epochs_and_labelled_metrics_are_cells_of_their_own(report):
    found = report([make.record("a0_5", "mnist", s) for s in range(3)])
    assert cell(found, "a0_5", "mnist", "epoch_best_val")["mean"] == np.mean(
        [6 + (4 + s) % 5 for s in range(3)]
    )
    assert cell(found, "a0_5", "mnist", "test_error_last")["mean"] == pytest.approx(
        cell(found, "a0_5", "mnist")["mean"] + 0.25
    )
    assert cell(found, "a0_5", "mnist", "test_error_best")["survey"] == 1.84
    assert math.isnan(cell(found, "a0_5", "mnist", "test_error_variance")["survey"])


def test_failed_diverged_and_stale_runs_are_counted(report):
    found = report(
        [
            make.record("a0", "mnist", 0, wrong=40),
            make.record("a0", "mnist", 1, status="diverged"),
            make.record("a0", "mnist", 2, status="failed"),
            make.record("a0", "mnist", 3, wrong=40, code="older"),
        ]
    )
    got = cell(found, "a0", "mnist")
    assert (got["n"], got["diverged"], got["failed"], got["stale"]) == (3, 1, 1, 1)
    assert got["mean"] == pytest.approx((10 + 100 + 10) / 3)
    for text in ("1 of 4 runs failed", "1 of 4 runs diverged", "1 of 4 runs are stale"):
        assert any(note.startswith(text) for note in found.notes), text


def test_a_run_that_diverges_late_counts_as_lost_all_the_same(report):
    """Its best epoch on validation lies before the divergence; that is no error it can be credited with."""
    late = make.record("a0", "mnist", 1, status="diverged")
    late["metrics"]["test_error"] = 10.0
    found = report([make.record("a0", "mnist", 0, wrong=40), late])
    assert cell(found, "a0", "mnist")["mean"] == pytest.approx((10 + 100) / 2)


def test_staleness_of_another_normaliser_needs_its_own_code_hash(report):
    group = make.record(
        "a1", "mnist", 0, code="g1", changes={"norm": {"name": "group", "options": {}}, **OTHER}
    )
    assert list(report([group]).extra["stale"].unique()) == [0]
    for code, count in (("g1", 0), ("g2", 1)):
        grid = {**make.grid(), "codes": {"group": code, "diminishing": make.CODE}}
        assert list(report([group], grid=grid).extra["stale"].unique()) == [count]


# ------------------------------------------------------------------------------------------------- matching


def test_a_record_fills_a_cell_by_its_config_whatever_its_seed_and_name(report):
    odd = make.record("a0_5", "mnist", 77, cell={"row": "a1", "column": "ni"}, profile="cpu")
    found = report([odd, make.record("a0_5", "mnist", 1, changes={"alpha": 0.5, "epochs": 12.0})])
    assert cell(found, "a0_5", "mnist")["n"] == 2
    assert cell(found, "a1", "ni")["n"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.3},
        {"epochs": 13},
        {"optimizer": {"name": "adagrad", "lr": 0.03}},
        {"norm": {"name": "diminishing", "options": {"eps": 1e-3}}},
        {"data": {"name": "mnist5k", "limit_train": 100, "limit_eval": None}},
        {"reading": "A", "epochs": 13},
        {"norm": {"name": "group", "options": {}}, **OTHER, "epochs": 13},
        {"norm": {"name": "group", "options": {}}, **OTHER, "optimizer": {"name": "adagrad", "lr": 0.03}},
        {"extra": 1},
    ],
    ids=str,
)
def test_off_the_grid_is_in_no_table(report, changes):
    found = report([make.record("a0_5", "mnist", 0, changes=changes)])
    assert len(found.runs) == 0 and len(found.extra) == 0 and (found.cells["n"] == 0).all()


def test_another_variant_is_a_labelled_row(report):
    changes = [{"reading": "A"}, {"reading": "A"}, {"initial": "zero_zero", "unit": "step"}]
    found = report([make.record("a0_5", "mnist", s, changes=c) for s, c in enumerate(changes)])
    rows = found.extra[found.extra["metric"] == "test_error"].set_index("label")
    assert list(rows["n"]) == [1, 2] and set(rows.index) == {"reading=A", "initial=zero_zero, unit=step"}
    assert (rows["match"] == "variant").all() and (rows["row"] == "a0_5").all()
    assert (rows["survey"] == 1.84).all() and (found.cells["n"] == 0).all()


def test_another_normaliser_is_a_row_not_in_the_survey(report):
    group = {"norm": {"name": "group", "options": {"groups": 2.0}}, **OTHER}
    found = report(
        [
            make.record("a1", "mnist", 0, changes=group),
            make.record("a1", "mnist", 0, changes={**group, "placement": "after"}),
            make.record("a1", "ni", 0, changes={"norm": {"name": "my.Layer", "options": {}}, **OTHER}),
        ]
    )
    rows = found.extra[found.extra["metric"] == "test_error"]
    assert list(zip(rows["label"], rows["column"], rows["row"], rows["match"], strict=True)) == [
        ("group (groups=2)", "mnist", "", "norm"),
        ("group (groups=2), placement=after", "mnist", "", "norm"),
        ("my.Layer", "ni", "", "norm"),
    ]
    assert rows["survey"].isna().all()


def test_profiles_are_never_mixed(report):
    """The cpu profile of this grid has more epochs: its runs and the quick ones do not meet."""
    grid = make.grid(("quick", "cpu"))
    longer = [{**p, "config": {**p["config"], "epochs": 40}} for p in grid["profiles"]["cpu"]["points"]]
    grid["profiles"]["cpu"]["points"] = longer
    records = [make.record("a0_5", "mnist", s) for s in range(3)]
    records += [make.record("a0_5", "mnist", s, changes={"epochs": 40}, profile="cpu") for s in range(2)]
    assert cell(report(records, "quick", grid), "a0_5", "mnist")["n"] == 3
    assert cell(report(records, "cpu", grid), "a0_5", "mnist")["n"] == 2
    nothing = report(records, "paper", grid)
    assert len(nothing.runs) == 0
    assert "profile paper has not been swept: no grid for it" in nothing.notes


def test_trials_fill_no_cell(report):
    found = report([make.record("a0_5", "mnist", 0, role="trial"), make.record("a0_5", "mnist", 1)])
    assert cell(found, "a0_5", "mnist")["n"] == 1


def test_two_contents_of_one_data_set_are_not_averaged(report):
    records = [make.record("a0_5", "mnist", s) for s in range(3)]
    other = make.record("a0_5", "mnist", 0, wrong=100, run_id="f" * 16)
    other["data"] = {**other["data"], "fingerprint": "else"}
    found = report([*records, other])
    assert cell(found, "a0_5", "mnist")["n"] == 3
    assert any("another content of the data" in note for note in found.notes)


# ------------------------------------------------------------------------------------------------- verdicts


def whole(columns=("mnist", "ni", "cifar10"), seeds=3, **wrong):
    """All rows of the columns; `wrong` replaces a row's count."""
    count = {**make.WRONG, **wrong}
    return [
        make.record(row, column, seed, wrong=count[row] + (seed % 2))
        for column in columns
        for row in make.ALPHAS
        for seed in range(seeds)
    ]


def test_stand_in_and_mechanics_are_labelled(report):
    found = report(whole())
    c2 = claim(found, "T3.C2")
    assert c2.verdict == "supported" and c2.low > 0 and c2.n == 3
    assert c2.label == "on mnist5k (stand-in), glyphs (stand-in); without ni (kdd_keel: mechanics)"
    assert len(c2.components) == 27
    left = [c for c in c2.components if c.verdict == "not comparable"]
    assert {c.column for c in left} == {"ni"} and all(c.margin is None for c in left)
    assert claim(found, "T3.C5").verdict == "not comparable"  # NI alone
    assert claim(found, "T3.C4").verdict == "not comparable"  # all three sets at once
    assert "mechanics" in claim(found, "T3.C5").why


def test_absolute_thresholds_need_the_papers_data_and_epochs(report):
    found = report(whole())
    assert claim(found, "T3.C3").verdict == "not comparable"
    c7 = claim(found, "T3.C7")  # its ratio is relative
    assert c7.verdict != "not comparable" and c7.label.endswith("without its absolute thresholds")
    verdicts = {c.name: c.verdict for c in c7.components}
    assert verdicts["mnist: at least 37"] == "not comparable"
    assert verdicts["mnist: largest at most 3 x smallest"] in ("supported", "inconclusive")


def as_paper(epochs=None):
    """A grid on the paper's own data, with its epochs or with others."""
    grid = make.grid(("paper",))
    for point in grid["profiles"]["paper"]["points"]:
        told = make.paper_config(point["row"], point["column"])
        point["config"] = {**told, "epochs": epochs or told["epochs"]}
    return grid


def run_as_paper(grid, seeds=3):
    records = []
    for point in grid["profiles"]["paper"]["points"]:
        for seed in range(seeds):
            count = make.WRONG[point["row"]] + (seed % 2)
            changes = {k: point["config"][k] for k in ("data", "epochs")}
            records.append(make.record(point["row"], point["column"], seed, wrong=count, changes=changes))
    return records


def test_on_the_papers_data_everything_is_comparable(report):
    grid = as_paper()
    found = report(run_as_paper(grid), "paper", grid)
    assert not any(c.verdict in ("not comparable", "not run") for c in found.claims)
    assert all(c.label == "" for c in found.claims)
    assert len(found.deviations) == 0


def test_other_epochs_take_the_absolute_thresholds_away(report):
    grid = as_paper(epochs=7)
    found = report(run_as_paper(grid), "paper", grid)
    assert claim(found, "T3.C3").verdict == "not comparable"
    assert claim(found, "T3.C1").verdict != "not comparable"


def test_below_three_seeds_nothing_is_concluded(report):
    found = report(whole(seeds=2))
    assert {c.verdict for c in found.claims} <= {"inconclusive", "not comparable"}
    assert "fewer than 3 seeds (n = 2)" in claim(found, "T3.C2").why
    single = report(whole(seeds=1))
    c2 = claim(single, "T3.C2")
    assert (c2.verdict, c2.low, c2.high, c2.n) == ("inconclusive", None, None, 1)
    assert c2.margin is not None


def test_a_part_that_did_not_run_keeps_a_claim_open(report):
    found = report(
        [r for r in whole() if not (r["cell"]["row"] == "a0_5" and r["cell"]["column"] == "mnist")]
    )
    c2 = claim(found, "T3.C2")
    assert (c2.verdict, c2.why) == ("inconclusive", "1 of 27 parts not run")
    assert claim(found, "T3.C6").verdict == "inconclusive"  # CIFAR-10 alone ran in full
    assert claim(report(whole(columns=("ni",))), "T3.C1").verdict == "not run"


def test_one_part_below_zero_contradicts_even_when_others_did_not_run(report):
    found = report(whole(columns=("mnist",), seeds=5, a0=2))
    c2 = claim(found, "T3.C2")
    assert c2.verdict == "contradicted" and c2.high < 0
    assert "mnist: a0 above 3 x a1" in c2.why


def test_every_verdict_is_a_known_word(report):
    for records in ([], whole(), whole(seeds=1)):
        for c in report(records).claims:
            assert c.verdict in VERDICTS
            assert all(part.verdict in VERDICTS for part in c.components)


@pytest.mark.parametrize("counts", [{"a0_01": (30, 42, 33), "a0_001": (25, 24, 31)}, {"a0_01": (9, 10, 9)}])
def test_paired_masks_give_the_interval_of_the_two_way_layout(report, counts):
    """T3.C6's first part on CIFAR-10, computed here from the masks with the mean squares written out.

    In the second case every seed differs by one example: no spread of the seeds' means, so the floor counts.
    """
    counts = {"a0_001": (10, 11, 10), **counts}
    records = [r for r in whole(columns=("cifar10",)) if r["cell"]["row"] not in counts]
    records += [make.record(row, "cifar10", s, wrong=w) for row in counts for s, w in enumerate(counts[row])]
    found = report(records)
    masks = {row: np.array([make.mask(w, s) for s, w in enumerate(counts[row])]) for row in counts}
    x = 100.0 * masks["a0_01"] - 100.0 * masks["a0_001"]
    n, examples = x.shape
    seed, example = examples * x.mean(1).var(ddof=1), n * x.mean(0).var(ddof=1)
    rest = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    residual = (rest**2).sum() / ((n - 1) * (examples - 1))
    parts = np.array([seed, max(example - residual, residual / 4 - seed, 0)]) / (n * examples)
    weighted = (parts * stats.t.isf(0.025, [n - 1, examples - 1])).sum() / parts.sum()
    pooled = stats.t.isf(0.025, parts.sum() ** 2 / (parts**2 / [n - 1, examples - 1]).sum())
    half = (2 * weighted + pooled) / 3 * math.sqrt(parts.sum())
    assert half > 0.1
    part = claim(found, "T3.C6").components[0]
    assert part.name == "cifar10: a0_001 below a0_01"
    assert (part.margin, part.low, part.high) == pytest.approx(
        (x.mean(), x.mean() - half, x.mean() + half), rel=1e-4
    )
    assert "paired by seed and test example" in claim(found, "T3.C6").why


def test_masks_of_a_balanced_error_are_not_used(report):
    records = whole(columns=("cifar10",))
    for r in records:
        r["metrics"]["test_error"] += 3.0
    assert "binomial test-set error added" in claim(report(records), "T3.C6").why


@pytest.mark.parametrize("wrong", [None, "not base64!", "AAAA"])
def test_a_missing_or_broken_mask_falls_back(report, wrong):
    records = whole(columns=("cifar10",))
    for r in records:
        r["wrong"] = wrong
    assert "binomial test-set error added" in claim(report(records), "T3.C6").why


# ----------------------------------------------------------------------------------------------- deviations


def listed(found):
    return {tuple(row) for row in found.deviations.to_numpy()}


def test_deviations_are_compared_and_grouped(report):
    assert listed(report(whole(seeds=1))) == {
        ("mnist", "data.name", "mnist", "mnist5k", "all"),
        ("ni", "data.name", "kddcup99", "kdd_keel", "all"),
        ("cifar10", "data.name", "cifar10", "glyphs", "all"),
        ("mnist", "epochs", "200", "12", "all"),
        ("ni", "epochs", "100", "12", "all"),
        ("cifar10", "epochs", "50", "12", "all"),
    }


def test_deviations_alike_in_all_columns_or_in_some_rows_only(report):
    grid = make.grid()
    for point in grid["profiles"]["quick"]["points"]:
        point["config"] = {**point["config"], "batch_size": 50 if point["row"] == "a0" else 100}
    records = []
    for point in grid["profiles"]["quick"]["points"]:
        size = {"batch_size": point["config"]["batch_size"]}
        records.append(make.record(point["row"], point["column"], 0, changes=size))
    found = {row for row in listed(report(records, grid=grid)) if row[1] == "batch_size"}
    rest = ", ".join(row for row in make.ALPHAS if row != "a0")
    assert found == {
        (column, "batch_size", "none", size, rows)
        for column in make.DATA
        for size, rows in (("50", "a0"), ("100", rest))
    }


def test_the_variant_of_the_data_that_was_found_is_a_deviation(report):
    grid = as_paper()
    records = run_as_paper(grid, seeds=1)
    for r in records:
        if r["cell"]["column"] == "cifar10":
            r["data"] = {**r["data"], "name": "cifar10_jpeg"}
    found = report(records, "paper", grid)
    assert listed(found) == {("cifar10", "data.name", "cifar10", "cifar10_jpeg", "all")}
    assert cell(found, "a1", "cifar10")["standing"] == "variant"
    assert claim(found, "T3.C3").verdict == "not comparable" or "absolute" in claim(found, "T3.C3").label
    assert claim(found, "T3.C6").label == "on cifar10_jpeg (variant)"


def test_without_a_stored_paper_config_it_says_so(report):
    assert listed(report(whole(seeds=1), papers=False)) == {("all", "config", "not stored", "-", "all")}


def test_a_cell_that_the_paper_profile_does_not_have_says_so(report):
    records = whole(seeds=1)
    for r in records:
        r["paper"] = None
    assert listed(report(records)) == {("all", "config", "no such cell", "-", "all")}


def test_notes_of_the_data_and_damage_reach_the_report(report, tmp_path):
    file = make.write_shard(tmp_path / "runs", [], "broken")
    file.write_text("{\n{\n")
    found = report(whole(columns=("mnist",), seeds=1))
    assert found.damaged == 2 and "2 damaged records ignored" in found.notes
    assert "mnist: generated for tests <mnist>" in found.notes


def test_analyse_without_any_grid(tmp_path):
    make.write_shard(tmp_path, [make.record("a1", "mnist", 0)])
    loaded = store.load(tmp_path)
    found = analyse(loaded.frame, loaded.grid["T3"], loaded.paper["T3"], T3, "quick")
    assert len(found.runs) == 0 and any("no grid" in note for note in found.notes)
    empty = store.load(tmp_path / "nothing")
    assert (analyse(empty.frame, {}, {}, T3, "quick").cells["n"] == 0).all()


def test_values_are_written_as_a_person_writes_them():
    written = {40.0: "40", 0.05: "0.05", None: "none", "x": "x"}
    assert {k: matching.plain(k) for k in written} == written
    assert matching.plain([0.05, 12.0, 0.01]) == "[0.05,12,0.01]" and matching.plain([300, 2.0]) == "[300,2]"
