"""The committed snapshot: small, complete enough to rebuild the report, in the record's own schema."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from reports import published, snapshot, store
from reports.analysis import analyse
from tests.reports.fixtures import make_golden as make

T3 = published.load("T3")


@pytest.fixture
def runs(tmp_path):
    make.write_grid(tmp_path / "runs")
    make.write_shard(tmp_path / "runs", make.golden_records())
    return tmp_path / "runs"


def report_of(loaded):
    return analyse(loaded.frame, loaded.grid["T3"], loaded.paper["T3"], T3, "quick")


def test_the_report_is_the_same_from_the_snapshot_alone(runs, tmp_path):
    measured = tmp_path / "measured"
    said = snapshot.snapshot(runs, measured, "T3")
    assert sorted(p.name for p in (measured / "T3").iterdir()) == [
        "grid.json",
        "paper.json",
        "records.parquet",
    ]
    assert "42 records" in said and sum(p.stat().st_size for p in (measured / "T3").iterdir()) < 40_000
    before, after = report_of(store.load(runs)), report_of(store.load(tmp_path / "no runs", measured))
    columns = [c for c in before.cells if c not in ("runs", "origin")]
    pd.testing.assert_frame_equal(before.cells[columns], after.cells[columns])
    assert set(after.runs["origin"]) == {"measured"}
    assert [(c.verdict, c.low, c.why) for c in before.claims] == [
        (c.verdict, c.low, c.why) for c in after.claims
    ]
    pd.testing.assert_frame_equal(before.deviations, after.deviations)


def test_only_what_the_table_shows_is_kept(runs, tmp_path):
    snapshot.snapshot(runs, tmp_path / "measured", "T3")
    kept = store.load(tmp_path / "none", tmp_path / "measured").frame
    assert not (kept["config.optimizer.lr"] == 0.03).any()  # a sweep's record
    assert (kept["config.norm.name"] == "group").any() and (kept["config.reading"] == "A").any()


def test_snapshot_and_runs_are_merged_by_run_id(runs, tmp_path):
    measured = tmp_path / "measured"
    snapshot.snapshot(runs, measured, "T3")
    other = tmp_path / "other"
    make.write_grid(other)
    make.write_shard(other, [make.record("a0_5", "mnist", 0), make.record("a0_5", "mnist", 7)])
    merged = store.load(other, measured).frame
    assert len(merged) == 42 + 1
    both = merged[merged["run_id"] == make.record("a0_5", "mnist", 0)["run_id"]]
    assert list(both["origin"]) == ["here"]
    mixed = report_of(store.load(other, measured)).cells.set_index(["row", "column", "metric"])
    assert mixed.loc[("a0_5", "mnist", "test_error"), "origin"] == "mixed"


def test_a_later_snapshot_keeps_the_earlier_one(runs, tmp_path):
    measured = tmp_path / "measured"
    snapshot.snapshot(runs, measured, "T3")
    fewer = tmp_path / "fewer"
    make.write_grid(fewer)
    make.write_shard(fewer, [make.record("a0_5", "mnist", 7)])
    assert "43 records" in snapshot.snapshot(fewer, measured, "T3")


def test_curves_are_thinned_and_records_stay_whole(tmp_path):
    make.write_grid(tmp_path)
    found = make.record("a0_5", "mnist", 0)
    found["curves"] = {
        "epoch": list(range(1, 201)),
        "test_error": [100 / (i + 3) for i in range(200)],
        "val_error": [],
    }
    make.write_shard(tmp_path, [found])
    snapshot.snapshot(tmp_path, tmp_path / "measured", "T3")
    (text,) = pq.read_table(tmp_path / "measured" / "T3" / "records.parquet")["record"].to_pylist()
    kept = json.loads(text)
    assert make.line(kept) == text  # its hash is its own
    epochs, errors = kept["curves"]["epoch"], kept["curves"]["test_error"]
    assert len(epochs) == len(errors) == 40 and (epochs[0], epochs[-1]) == (1, 200)
    assert errors == pytest.approx([100 / (e + 2) for e in epochs], rel=1e-3)
    assert {k: v for k, v in kept.items() if k not in ("curves", "sha256")} == {
        k: v for k, v in found.items() if k != "curves"
    }


def test_what_is_no_curve_over_the_epochs_stays_whole_of_one_seed(tmp_path):
    """Figures by layer of every seed, a picture's pixels of the smallest one that has them."""
    make.write_grid(tmp_path)
    found = [make.record("a0_5", "mnist", seed) for seed in range(4)]
    for seed, one in enumerate(found):
        one["curves"] = {
            "epoch": list(range(1, 101)), "test_error": [100.0 - e for e in range(100)],
            "strip": [] if seed == 0 else list(range(800)), "strip_shape": [8, 10, 10],
            "divergence": [0.123456] * 13,
        }  # fmt: skip
    make.write_shard(tmp_path, found)
    snapshot.snapshot(tmp_path, tmp_path / "measured", "T3")
    kept = store.load(tmp_path / "none", tmp_path / "measured").frame.sort_values("seed")
    for seed, curves in enumerate(store.heavy(kept, "curves")):
        assert len(curves["epoch"]) == len(curves["test_error"]) == 40
        assert curves["strip_shape"] == [8, 10, 10] and curves["divergence"] == [0.1235] * 13
        assert curves["strip"] == (list(range(800)) if seed == 1 else [])
    snapshot.snapshot(tmp_path / "none", tmp_path / "measured", "T3")  # once more changes nothing
    again = store.load(tmp_path / "none", tmp_path / "measured").frame.sort_values("seed")
    assert store.heavy(again, "curves") == store.heavy(kept, "curves")


def test_masks_go_when_the_room_is_small_the_largest_set_first(runs, tmp_path):
    whole, limit = tmp_path / "whole", 0
    snapshot.snapshot(runs, whole, "T3")
    limit = sum(p.stat().st_size for p in (whole / "T3").iterdir()) - 300
    said = snapshot.snapshot(runs, tmp_path / "tight", "T3", limit=limit)
    assert said.endswith("without the masks of mnist5k")
    kept = store.load(tmp_path / "none", tmp_path / "tight").frame
    for name, masks in {
        n: store.heavy(g, "wrong") for n, g in kept.groupby("data.name", observed=True)
    }.items():
        assert any(masks) == (name != "mnist5k")
    with pytest.raises(ValueError, match=r"42 records need \d+ bytes without masks, there is room for"):
        snapshot.snapshot(runs, tmp_path / "tiny", "T3", limit=2000)


def test_nothing_to_keep_is_one_clear_line(tmp_path):
    make.write_grid(tmp_path)
    with pytest.raises(ValueError, match=r"no record of T3 in .* fills a cell: sweep the table first"):
        snapshot.snapshot(tmp_path, tmp_path / "measured", "T3")
