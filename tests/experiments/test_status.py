"""python -m experiments.status: what is done, running, failed and missing."""

import contextlib

from hydra import compose, initialize_config_dir

from experiments import config, grid, status, store


def test_status_counts_runs_of_the_grid_alone(tmp_path):
    """Runs off the grid that are under way are no grid points, and none is missing twice."""
    folder = tmp_path / "T3"
    folder.mkdir()
    with initialize_config_dir(version_base="1.3", config_dir=str(config.CONF)):
        composed = grid.cached(lambda words: compose("config", words))
        points = grid.points(["table=T3", "profile=smoke", "column=mnist", "seed=0,7"], composed)
    note = {"status": "running", "step": 1, "steps": 2, "seconds": 1.0, "profile": "smoke"}
    digests = [config.digest(config.plain(p.run)) for p in points]
    ids = [f"{i:016x}" for i in range(len(points))]
    store.beat(folder, "job", {**note, "runs": ids, "configs": digests})
    with contextlib.ExitStack() as held:
        for rid in ids:
            held.enter_context(store.lock(folder, rid))
        (row,) = [r for r in status.of_table("T3", folder) if r[1] == "smoke"]
    found = dict(zip(status.HEADS, row, strict=True))
    assert (found["points"], found["running"], found["missing"], found["other runs"]) == (30, 10, 20, 10)
    assert found["begun"] == 0
    # interrupted: no lock is held any more, and of two runs there is a checkpoint, one of them off the grid
    for rid in (ids[0], ids[-1]):
        store.save_checkpoint(folder / rid, {"step": 1})
    (row,) = [r for r in status.of_table("T3", folder) if r[1] == "smoke"]
    found = dict(zip(status.HEADS, row, strict=True))
    assert (found["running"], found["begun"], found["missing"], found["other runs"]) == (0, 1, 29, 1)


def test_status_wants_a_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert status.main([f"runs={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err == f"runs={tmp_path / 'file'}: is not a folder\n"
