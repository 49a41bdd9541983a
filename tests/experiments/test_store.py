"""The run store: nothing half-written, nothing done twice, nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from experiments import store
from experiments.config import BadInput


def test_a_sealed_record_reads_back_and_any_changed_byte_is_noticed(make_record):
    line = store.seal(make_record())
    assert store.unseal(line) == make_record()
    for i in range(0, len(line) - 1, 7):
        changed = line[:i] + bytes([line[i] ^ 1]) + line[i + 1 :]
        with contextlib.suppress(BadInput):  # the change hit the schema number
            assert store.unseal(changed) != make_record()
    for cut in range(0, len(line) - 1, 11):
        assert store.unseal(line[:cut]) is None


def test_the_seal_is_the_documented_hash(make_record):
    import hashlib

    record = json.loads(store.seal(make_record()))
    sha = record.pop("sha256")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sha == hashlib.sha256(text.encode()).hexdigest()


def test_a_newer_schema_is_refused_not_ignored(make_record):
    with pytest.raises(BadInput, match="schema 2"):
        store.unseal(store.seal(make_record(schema=2)))


def test_write_leaves_the_old_file_where_the_new_one_fails(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    store.write(path, b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left on device"):
        store.write(path, b"new and longer")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_finished_reads_both_layouts_and_the_latest_wins(tmp_path, make_record):
    table = tmp_path / "T3"
    store.save_single(table, make_record(run_id="a"))
    later = {"finished": "2026-02-01T00:00:00.000Z"}
    store.save_population(
        table, "p", [make_record(run_id="a", status="failed", time=later), make_record(run_id="b")]
    )
    found = store.finished(table)
    assert {k: v["status"] for k, v in found.items()} == {"a": "failed", "b": "finished"}
    assert store.finished(table) == found  # from index.json


def test_finished_notices_truncation_and_a_broken_index(tmp_path, make_record):
    table = tmp_path / "T3"
    store.save_single(table, make_record(run_id="a"))
    store.save_population(table, "p", [make_record(run_id="b"), make_record(run_id="c")])
    assert set(store.finished(table)) == {"a", "b", "c"}
    shard = table / "shards" / "p" / "records.jsonl"
    shard.write_bytes(shard.read_bytes()[:-20])
    (table / "a" / "record.json").write_bytes(b"")
    assert set(store.finished(table)) == {"b"}
    (table / "index.json").write_bytes(b"{")
    assert set(store.finished(table)) == {"b"}


def test_superseded_records_are_kept(tmp_path, make_record):
    table = tmp_path / "T3"
    for error in (1.0, 2.0):
        store.save_single(table, make_record(run_id="a", metrics={"test_error": error}))
    (old,) = (table / "superseded").iterdir()
    assert store.unseal(old.read_bytes())["metrics"] == {"test_error": 1.0}


@pytest.mark.parametrize(
    ("known", "rerun", "wanted"),
    [
        (None, "none", True),
        (("finished", "now"), "failed", False),
        (("diverged", "now"), "failed", False),
        (("failed", "now"), "failed", True),
        (("failed", "now"), "none", False),
        (("finished", "old"), "failed", False),
        (("finished", "old"), "stale", True),
        (("failed", "now"), "stale", True),
        (("finished", "now"), "all", True),
    ],
)
def test_what_is_done_again(known, rerun, wanted):
    record = known and {"status": known[0], "code": known[1]}
    assert store.wanted(record, "now", rerun) is wanted


def test_checkpoint_truncated_anywhere_is_not_loaded(tmp_path):
    state = {"w": torch.randn(50), "curves": [{"epoch": [1, 2]}], "n": 3, "none": None}
    store.save_checkpoint(tmp_path, state)
    back = store.load_checkpoint(tmp_path)
    assert torch.equal(back["w"], state["w"]) and back["curves"] == state["curves"]
    (path,) = tmp_path.glob("checkpoint.*.pt")
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert store.load_checkpoint(tmp_path) is None and not path.exists()


def test_only_one_checkpoint_is_kept(tmp_path):
    for n in range(3):
        store.save_checkpoint(tmp_path, {"n": n})
    assert len(list(tmp_path.glob("checkpoint.*"))) == 1 and store.load_checkpoint(tmp_path) == {"n": 2}


HOLD = """
import sys, time
from pathlib import Path
from experiments import store
with store.lock(Path(sys.argv[1]), "a"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_holder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(store.Busy), store.lock(tmp_path, "a"):
        pass
    assert store.is_locked(tmp_path, "a")
    with store.lock(tmp_path, "b"):
        pass
    holder.kill()
    holder.wait()
    with store.lock(tmp_path, "a"):
        pass


def test_a_live_owner_on_another_host_is_respected_until_its_heartbeat_ends(tmp_path):
    """On a shared file system the OS lock may not reach the other host; its note does."""
    with store.lock(tmp_path, "a"):
        pass
    note = tmp_path / "locks" / "a.json"
    note.write_text(json.dumps({"host": "elsewhere", "pid": 1, "time": time.time()}))
    with pytest.raises(store.Busy), store.lock(tmp_path, "a"):
        pass
    note.write_text(json.dumps({"host": "elsewhere", "pid": 1, "time": time.time() - store.HEARTBEAT - 1}))
    with store.lock(tmp_path, "a"):
        assert json.loads(note.read_text())["host"] != "elsewhere"


def test_unwritable_store_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="runs="):
        store.check_writable(blocked / "runs")
