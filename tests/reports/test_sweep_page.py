"""Sweep pages: the numbers, what is kept apart, the words for bad input."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import site, store, sweep
from tests.reports import synthetic
from tests.reports.html_checks import Page, check_site

NOWHERE = Path("does-not-exist")
LRS = (0.003, 0.01, 0.03, 0.1)


def records() -> Iterable[dict[str, Any]]:
    for row, lr, seed in itertools.product(("a1", "a0_5", "a1_over_j"), LRS, range(3)):
        yield synthetic.record(row, "mnist", seed, optimizer__lr=lr)
    for seed in range(2):
        yield synthetic.record("a0_5", "ni", seed)
        yield synthetic.record("a0_5", "mnist", seed, batch_size=50)
    yield synthetic.record("a0_5", "mnist", 7, optimizer__lr=0.1, status="failed")
    yield synthetic.record("a0_5", "mnist", 8, optimizer__lr=0.1, status="diverged")
    group = {
        "norm": {"name": "group", "options": {}},
        "alpha": None,
        "reading": None,
        "initial": None,
        "unit": None,
    }
    yield synthetic.record("a1", "mnist", 0, **group)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("sweeps") / "runs"
    synthetic.write(runs, records(), 10)
    return runs


def make(runs: Path, out: Path, **query: str) -> tuple[dict[str, Any], pd.DataFrame, Page]:
    """(what the command gets, the CSV, the page) of a sweep of T3."""
    found = site.build_sweep(runs, out, NOWHERE, {"table": "T3", **query})
    csv = next(name for name in found["files"] if name.endswith(".csv"))
    return found, pd.read_csv(out / csv, keep_default_na=False, na_values=[""]), Page(out / found["file"])


def metric(row: str, key: str, seeds: Iterable[int] = range(3), **changes: Any) -> list[float]:
    return [synthetic.record(row, "mnist", seed, **changes)["metrics"][key] for seed in seeds]


def test_means_and_t_intervals_by_hand(runs: Path, tmp_path: Path) -> None:
    _, csv, _ = make(runs, tmp_path, x="optimizer.lr", y="val_error", alpha="0.5", batch_size="100")
    mnist = csv[csv.data == "mnist5k"].set_index("optimizer.lr")
    for lr in (0.003, 0.03):
        values = metric("a0_5", "val_error", optimizer__lr=lr)
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        got = mnist.loc[lr]
        assert got["n"] == 3
        np.testing.assert_allclose([got["mean"], got["sd"]], [np.mean(values), np.std(values, ddof=1)])
        np.testing.assert_allclose(
            [got["low"], got["high"]], [np.mean(values) - half, np.mean(values) + half]
        )


def test_the_interval_of_an_error_rate_covers_the_test_set_too(runs: Path, tmp_path: Path) -> None:
    _, csv, _ = make(runs, tmp_path, x="lr", y="test_error", alpha="0.5", batch_size="100")
    got = csv[(csv.data == "mnist5k") & (csv.lr == 0.003)].iloc[0]
    values = metric("a0_5", "test_error", optimizer__lr=0.003)
    p = np.mean(values) / 100
    seeds, examples = np.var(values, ddof=1) / 3, 1e4 * p * (1 - p) / 1000
    both = np.sqrt(seeds + examples)
    half = (got["high"] - got["low"]) / 2
    assert 1.96 * both <= half * 1.001 and half <= stats.t.ppf(0.975, 2) * both * 1.001


def test_failed_runs_count_but_have_no_number_and_diverged_ones_do(runs: Path, tmp_path: Path) -> None:
    _, csv, page = make(runs, tmp_path, x="lr", y="test_error", alpha="0.5", batch_size="100")
    got = csv[(csv.data == "mnist5k") & (csv.lr == 0.1)].iloc[0]
    values = [*metric("a0_5", "test_error", optimizer__lr=0.1), 100.0]
    assert (got["n"], got["failed"], got["diverged"]) == (4, 1, 1)
    assert got["mean"] == pytest.approx(np.mean(values))
    assert any(row[-2:] == ["1", "1"] for row in page.tables[0])


def test_nothing_is_pooled_but_seeds(runs: Path, tmp_path: Path) -> None:
    _, csv, page = make(runs, tmp_path, x="alpha", y="test_error")
    assert set(csv.data) == {"mnist5k", "kdd_keel"}
    mnist = csv[(csv.data == "mnist5k") & (csv.alpha == "0.5")]
    assert len(mnist) == len(LRS) + 1  # every learning rate, and the other batch size
    assert set(mnist.n) == {2, 3, 4}
    assert all("optimizer.lr=" in s and "batch_size=" in s for s in mnist.setting)
    text = " ".join(page.text.split())
    assert "1 runs have no alpha" in text and "sweep table=T3 x=alpha y=test_error" in text


def test_one_number_at_one_value_is_a_point_without_interval(runs: Path, tmp_path: Path) -> None:
    _, csv, page = make(runs, tmp_path, x="alpha", y="weight_norm_last", seed="1", lr="0.03")
    assert set(csv.n) == {1} and csv.low.isna().all()
    assert page.raw.count('class="plot"') == 1


def test_two_parameters_make_a_heat_map(runs: Path, tmp_path: Path) -> None:
    _, csv, page = make(runs, tmp_path, x="alpha", x2="optimizer.lr", y="test_error", batch_size="100")
    mnist = csv[csv.data == "mnist5k"]
    assert len(mnist) == 3 * len(LRS)
    value = mnist[(mnist.alpha == "inv_m") & (mnist["optimizer.lr"] == 0.003)]["mean"].iloc[0]
    assert value == pytest.approx(np.mean(metric("a1_over_j", "test_error", optimizer__lr=0.003)))
    assert f"inv_m, 0.003: {value:.2f} (n = 3)" in page.raw


def test_values_are_in_natural_order() -> None:
    assert sweep.order(["inv_m2", "0.1", "1", "0.01", "inv_m", "0"]) == (
        ["0", "0.01", "0.1", "1", "inv_m", "inv_m2"],
        False,
    )
    assert sweep.order(["10", "9", "0.5"]) == (["0.5", "9", "10"], True)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"x": "alhpa", "y": "test_error"}, ["'alhpa'", "optimizer.lr", "test_error"]),
        ({"x": "alpha", "y": "accuracy"}, ["'accuracy'", "test_error"]),
        ({"x": "alpha", "y": "test_error", "x2": "alpha"}, ["different"]),
        ({"x": "test_error", "y": "test_error"}, ["different"]),
        ({"x": "alpha", "y": "status"}, ["status", "no numbers"]),
        ({"x": "alpha", "y": "test_error", "lr": "7"}, ["lr=7", "0.003"]),
        ({"x": "alpha", "y": "test_error", "momentun": "0.9"}, ["momentun", "optimizer.lr"]),
        ({"table": "T9", "x": "alpha", "y": "test_error"}, ["T9"]),
    ],
)
def test_bad_queries_are_one_line(
    runs: Path, tmp_path: Path, query: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        site.build_sweep(runs, tmp_path, NOWHERE, {"table": "T3", **query})
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert not list(tmp_path.glob("sweep_*")), "no page of a sweep that failed"


def test_filters_compare_numbers_as_numbers(runs: Path) -> None:
    frame = store.load(runs).frame
    assert (
        len(sweep.select(frame, "T3", {"lr": "0.0100"}))
        == len(sweep.select(frame, "T3", {"optimizer.lr": "1e-2"}))
        > 0
    )
    assert set(sweep.select(frame, "T3", {"alpha": "inv_m"})["config.alpha"]) == {"inv_m"}


@pytest.mark.slow
def test_index_lists_sweeps_and_a_build_brings_them_up_to_date(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    synthetic.write_grid(runs)
    synthetic.write(runs, synthetic.cells(1, columns=["mnist"]), 10)
    site.build(runs, out, NOWHERE)
    found, before, _ = make(runs, out, x="alpha", y="test_error", **{"data.name": "mnist5k"})
    pages = check_site(out)
    assert found["file"] in pages["index.html"].links
    assert set(before.n) == {1}
    synthetic.write(runs, [synthetic.record("a1", "mnist", 1)], 0)
    site.build(runs, out, NOWHERE)
    after = pd.read_csv(out / next(f for f in found["files"] if f.endswith(".csv")))
    assert sorted(after.n) == [1] * 9 + [2]
    assert found["file"] in check_site(out)["index.html"].links
    same, _, _ = make(runs, out, x="alpha", y="test_error", **{"data.name": "mnist5k"})
    assert check_site(out)["index.html"].links.count(same["file"]) == 1


def test_many_settings_are_capped_in_the_picture_and_whole_in_the_csv(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    settings = [round(0.001 * 1.3**i, 6) for i in range(sweep.LINES + 4)]
    synthetic.write(
        runs,
        [synthetic.record(r, "mnist", 0, optimizer__lr=lr) for lr in settings for r in ("a1", "a0_5")],
        10,
    )
    _, csv, page = make(runs, tmp_path / "out", x="alpha", y="test_error")
    assert len(csv) == 2 * len(settings)
    assert "4 more are in the table and CSV" in page.text


def test_an_interval_of_a_percentage_ends_where_percentages_do(tmp_path: Path) -> None:
    made = [synthetic.record("a0_5", "mnist", seed) for seed in range(2)]
    for record, accuracy in zip(made, (60.0, 99.0), strict=True):
        record["metrics"] |= {"test_accuracy": accuracy}
    synthetic.write(tmp_path / "runs", made, 2)
    _, csv, _ = make(tmp_path / "runs", tmp_path / "out", x="optimizer.lr", y="test_accuracy")
    half = stats.t.ppf(0.975, 1) * np.std([60, 99], ddof=1) / np.sqrt(2)
    assert 79.5 + half > 100 and 79.5 - half < 0
    assert csv[["low", "high"]].to_numpy().tolist() == [[0.0, 100.0]]
    assert sweep.unit_of("metrics.test_accuracy", pd.DataFrame()) == "test accuracy (%)"


def test_long_settings_are_cut_on_the_terminal() -> None:
    assert sweep.clipped("a=1, b=2") == "a=1, b=2"
    assert sweep.clipped("x" * 400) == "x" * 59 + "…"


def test_a_setting_is_called_by_its_row_where_the_row_stays(tmp_path: Path) -> None:
    """Two rows, each with two settings, along an axis that makes no other row of them."""
    frame = pd.DataFrame(
        [
            {"data.name": "t", "data.error": "error", "data.n_test": 100, "cell.row": row,
             "status": "finished", "config.units": units, "config.lr": lr, "config.data.name": "t",
             "metrics.test_error": 5.0}
            for row, units in (("small", 8), ("large", 16))
            for lr in (0.1, 0.2)
        ]
    )  # fmt: skip
    rows = sweep.summarise(frame, "config.lr", "metrics.test_error", None)
    assert set(rows["setting"]) == {"row=small, units=8", "row=large, units=16"}
    along = sweep.summarise(frame, "config.units", "metrics.test_error", None)  # which makes the row
    assert set(along["setting"]) == {"lr=0.1", "lr=0.2"}


def test_two_folders_of_one_name_are_no_two_seeds(tmp_path: Path) -> None:
    """The user's own sets are known by their content alone."""
    made = [synthetic.record("a1", "mnist", 0, batch_size=size) for size in (50, 100)]
    other = [synthetic.record("a1", "mnist", 0, batch_size=size) for size in (50, 100)]
    for record in other:
        record["data"]["fingerprint"] = "e" * 16
        record["run_id"] = record["run_id"][::-1]
    synthetic.write(tmp_path / "runs", made + other, 4)
    _, csv, _ = make(tmp_path / "runs", tmp_path / "out", x="batch_size", y="test_error")
    assert csv["n"].tolist() == [1, 1, 1, 1] and csv["data"].nunique() == 2
    assert (
        set(csv["data"].str.split().str[0]) == {"mnist5k"} and csv["data"].str.endswith("eeeeee").sum() == 2
    )
