"""Reading records back: both layouts, damage, newer schemas, merging, the cache."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports import store
from tests.reports.fixtures import make_golden as make


@pytest.fixture
def runs(tmp_path):
    make.write_grid(tmp_path / "runs")
    return tmp_path / "runs"


def ids(loaded):
    return sorted(loaded.frame["run_id"])


def test_both_layouts_make_one_frame(runs):
    records = [make.record("a1", "mnist", seed) for seed in range(4)]
    make.write_shard(runs, records[:2])
    make.write_single(runs, records[2])
    make.write_single(runs, records[3], indent=2)  # any layout of the JSON, the hash is of the canonical form
    loaded = store.load(runs)
    assert ids(loaded) == sorted(r["run_id"] for r in records)
    assert loaded.damaged == {"T3": 0}
    assert set(loaded.frame["origin"]) == {"here"}
    row = loaded.frame.set_index("run_id").loc[records[1]["run_id"]]
    assert row["metrics.test_error"] == records[1]["metrics"]["test_error"]
    assert (row["seed"], row["config.optimizer.lr"], row["config.norm.name"]) == (1, 0.01, "diminishing")
    assert (row["cell.row"], row["data.n_test"], row["time.wall_s"]) == ("a1", 400, 2.5)


def test_alpha_may_be_a_number_or_a_word(runs):
    make.write_shard(runs, [make.record(row, "mnist") for row in ("a0_5", "a1_over_j", "a1")])
    frame = store.load(runs).frame.set_index("cell.row")
    assert frame["config.alpha"].to_dict() == {"a0_5": 0.5, "a1_over_j": "inv_m", "a1": 1.0}
    assert frame["config.optimizer.lr"].dtype == np.float64


def test_equal_configs_have_equal_texts_whatever_the_numbers_type(runs):
    one = make.record("a1", "mnist", 0)
    other = make.record("a1", "mnist", 1, changes={"alpha": 1.0, "epochs": 12.0})
    make.write_shard(runs, [one, other])
    assert store.load(runs).frame["config"].nunique() == 1


def test_missing_folders_are_empty(tmp_path):
    loaded = store.load(tmp_path / "no", tmp_path / "none", tmp_path / "cache")
    assert len(loaded.frame) == 0 and {"run_id", "table", "config"} <= set(loaded.frame.columns)
    (tmp_path / "runs" / "T3").mkdir(parents=True)
    loaded = store.load(tmp_path / "runs")
    assert len(loaded.frame) == 0 and loaded.grid == {"T3": {}}


def damage(text):
    changed = text.replace('"test_error":3.5', '"test_error":0.5')
    assert changed != text
    return {
        "truncated": text[:200],
        "changed": changed,
        "another hash": text.replace('"sha256":"', '"sha256":"f'),
        "no hash": json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
        "not a record": "[1, 2]",
        "no config": '{"schema": 1, "run_id": "x"}',
        "binary": "\x00\x01",
    }


def test_damaged_records_are_skipped_and_counted(runs):
    good = make.line(make.record("a1", "mnist", 0))
    bad = damage(good)
    file = make.write_shard(runs, [make.record("a0_5", "mnist", 0)])
    with file.open("a") as stream:
        stream.writelines(text + "\n" for text in bad.values())
        stream.write(make.line(make.record("a0_25", "mnist", 0)) + "\n")
    loaded = store.load(runs)
    assert set(loaded.frame["cell.row"]) == {"a0_5", "a0_25"}
    assert loaded.damaged == {"T3": len(bad)}
    single = runs / "T3" / "x" / "record.json"
    single.parent.mkdir()
    single.write_text(good[:-1])
    assert store.load(runs).damaged == {"T3": len(bad) + 1}


@pytest.mark.parametrize("where", ["record", "grid"])
def test_newer_schema_is_one_clear_line(runs, where):
    if where == "record":
        make.write_shard(runs, [make.record("a1", "mnist", schema=2)])
    else:
        make.write_grid(runs, {**make.grid(), "schema": 2})
    with pytest.raises(store.NewerSchema, match="schema 2, this version reads up to 1: update") as error:
        store.load(runs)
    assert "\n" not in str(error.value)


def test_a_broken_grid_is_one_clear_line(runs):
    (runs / "T3" / "grid.json").write_text('{"schema": 1,')
    with pytest.raises(ValueError, match=r"grid\.json is not valid JSON"):
        store.load(runs)


def test_of_two_records_of_a_run_the_later_counts(runs):
    first = make.record("a1", "mnist", 0, status="failed")
    again = make.record("a1", "mnist", 0)
    again["time"] = {**again["time"], "finished": "2026-01-03T00:00:00Z"}
    assert first["run_id"] == again["run_id"]
    make.write_single(runs, again)
    make.write_shard(runs, [first])
    assert list(store.load(runs).frame["status"]) == ["finished"]


def test_superseded_records_are_ignored(runs):
    file = make.write_single(runs, make.record("a1", "mnist", 0))
    kept = runs / "T3" / "superseded" / "record.json"
    kept.parent.mkdir()
    kept.write_text(file.read_text())
    (kept.parent / "x").mkdir()
    (kept.parent / "x" / "record.json").write_text(make.line(make.record("a1", "mnist", 1)))
    assert list(store.load(runs).frame["seed"]) == [0]


# --------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def parsed(monkeypatch):
    """The files that were read line by line."""
    seen = []
    original = store._lines
    monkeypatch.setattr(store, "_lines", lambda path: seen.append(path) or original(path))
    return seen


def test_cache_parses_only_what_changed(runs, tmp_path, parsed):
    cache = tmp_path / "cache"
    first = make.write_shard(runs, [make.record("a1", "mnist", s) for s in range(3)], "p1")
    second = make.write_shard(runs, [make.record("a0", "mnist", s) for s in range(2)], "p2")
    with second.open("a") as stream:
        stream.write("{broken\n")
    fresh = store.load(runs, None, cache)
    assert sorted(parsed) == [str(first), str(second)]
    parsed.clear()
    again = store.load(runs, None, cache)
    assert parsed == [] and again.damaged == fresh.damaged == {"T3": 1}
    pd.testing.assert_frame_equal(again.frame, fresh.frame)

    with first.open("a") as stream:
        stream.write(make.line(make.record("a1", "mnist", 9)) + "\n")
    third = make.write_single(runs, make.record("a0_5", "ni", 0))
    grown = store.load(runs, None, cache)
    assert sorted(parsed) == sorted([str(first), str(third)])
    assert len(grown.frame) == 7 and grown.damaged == {"T3": 1}
    pd.testing.assert_frame_equal(by_id(grown.frame), by_id(store.load(runs).frame))

    second.unlink()
    assert len(store.load(runs, None, cache).frame) == 5
    assert store.load(runs, None, cache).damaged == {"T3": 0}


def by_id(frame):
    return frame.sort_values("run_id", ignore_index=True)[sorted(frame.columns)].astype(object)


def test_cache_notices_a_change_of_the_same_size(runs, tmp_path):
    file = make.write_single(runs, make.record("a1", "mnist", 0))
    store.load(runs, None, tmp_path / "cache")
    other = make.line(make.record("a1", "mnist", 0, code="f" * 16))
    file.write_text(other)
    os.utime(file, ns=(1, 1))
    assert list(store.load(runs, None, tmp_path / "cache").frame["code"]) == ["f" * 16]


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", None])
def test_an_unusable_cache_is_made_again(runs, tmp_path, content):
    make.write_single(runs, make.record("a1", "mnist", 0))
    cache = tmp_path / "cache"
    store.load(runs, None, cache)
    (file,) = cache.iterdir()
    if content is None:  # another version's
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        pq.write_table(table.replace_schema_metadata({b"parser": b"0", b"files": b"{}"}), file)
    else:
        file.write_bytes(content)
    assert len(store.load(runs, None, cache).frame) == 1
    assert len(store.load(runs, None, cache).frame) == 1


# ----------------------------------------------------------------------------------------- reading again


def test_heavy_reads_curves_and_masks_from_disk(runs, tmp_path):
    records = [make.record("a1", "mnist", s) for s in range(5)]
    make.write_shard(runs, records[:4])
    make.write_single(runs, records[4], indent=1)
    frame = store.load(runs, None, tmp_path / "cache").frame
    told = {r["run_id"]: r for r in records}
    for name in ("curves", "wrong"):
        assert store.heavy(frame, name) == [told[run_id][name] for run_id in frame["run_id"]]
    assert store.heavy(frame.iloc[:0], "curves") == []


def test_heavy_after_the_file_is_gone(runs):
    file = make.write_shard(runs, [make.record("a1", "mnist", 0)])
    frame = store.load(runs).frame
    file.write_text("x")
    assert store.heavy(frame) == [None]
    file.unlink()
    assert store.heavy(frame) == [None]


def test_resolve_short_names(runs):
    make.write_shard(runs, [make.record("a1", "mnist", 0)])
    frame = store.load(runs).frame
    assert store.resolve(frame, "alpha") == "config.alpha"
    assert store.resolve(frame, "optimizer.lr") == store.resolve(frame, "lr") == "config.optimizer.lr"
    assert store.resolve(frame, "test_error") == "metrics.test_error"
    assert store.resolve(frame, "seed") == "seed"
    assert store.resolve(frame, "norm") == "config.norm.name"
    with pytest.raises(ValueError, match=r"'name' is ambiguous: .*config\.data\.name"):
        store.resolve(frame, "name")
    with pytest.raises(
        ValueError, match=r"no record has 'alhpa' \(did you mean alpha\?\); there are: alpha, "
    ):
        store.resolve(frame, "alhpa")
    with pytest.raises(ValueError, match="no record has 'zzz'; there are: alpha, "):
        store.resolve(frame, "zzz")


def test_seal_is_the_contracts_hash():
    found = make.record("a1", "mnist", 0)
    assert store.seal(found) == make.line(found)
    assert store.checked(store.seal({**found, "note": "α"}).encode(), "here")["note"] == "α"


def test_population_null_or_not(runs):
    """A part that some records have and others not."""
    records = [make.record("a1", "mnist", s) for s in range(2)]
    records[1]["population"] = {"id": "p", "members": 10}
    make.write_shard(runs, records)
    frame = store.load(runs).frame.sort_values("seed")
    assert frame["population.members"].isna().tolist() == [True, False]
    assert frame["population.members"].iloc[1] == 10


def test_a_record_from_before_a_key_came_means_its_default(runs):
    """The grid says what a key without a value means; an axis of a search is none of the config's."""
    records = [make.record("a1", "mnist", seed) for seed in range(2)]
    make.write_shard(runs, records)
    old = store.load(runs).frame
    file = runs / "T3" / "grid.json"
    grid = json.loads(file.read_text())
    grid["defaults"] = {"data": {"share": 1.0}, "optimizer": {"lr": 7.0}, "placement": "x", "gone": {"a": 1}}
    for point in grid["profiles"]["quick"]["points"]:
        point["config"]["data"]["share"] = 1.0
    file.write_text(json.dumps(grid))
    loaded = store.load(runs)
    assert list(loaded.frame["config.data.share"]) == [1, 1]
    assert list(loaded.frame["config.optimizer.lr"]) == [0.01, 0.01]  # said, so it stays
    assert "config.gone.a" not in loaded.frame  # of a part that these configs do not have
    points = {store.canonical(p["config"]) for p in loaded.grid["T3"]["profiles"]["quick"]["points"]}
    assert set(loaded.frame["config"]) <= points and not set(old["config"]) & points
    assert store.filled({"data": {}}, grid["defaults"], leave={"data.share"}) == {
        "data": {},
        "placement": "x",
    }


def test_records_that_cannot_be_read_are_named(runs, monkeypatch):
    """Damaged, or without the right to read them: the rest is read all the same."""
    records = [make.record("a1", "mnist", seed) for seed in range(3)]
    for record in records:
        make.write_single(runs, record)
    broken, locked = (runs / "T3" / r["run_id"] / "record.json" for r in records[:2])
    broken.write_text(broken.read_text()[:-9])
    opened = Path.open

    def closed(path, *args, **kwargs):
        if path == locked.absolute():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    loaded = store.load(runs)
    assert ids(loaded) == [records[2]["run_id"]] and loaded.damaged == {"T3": 2}
    assert loaded.unread["T3"] == sorted(f"T3/{r['run_id']}/record.json" for r in records[:2])
