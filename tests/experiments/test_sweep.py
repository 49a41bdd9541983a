"""A sweep and the launcher below it: batches, launchers that die, clusters that are not there."""

import os
import signal
import time

import pytest

from data import games, sets
from experiments import __main__ as main
from experiments import config, grid, store, sweep
from experiments.config import BadInput
from experiments.job import distinct_data
from reports import matching
from reports import store as records


@pytest.fixture
def words(tmp_path):
    grid = ("column=mnist", "alpha=1,0.5,0.25", "population=1")
    return ["table=T3", "profile=smoke", *grid, f"runs={tmp_path}", "report=false"]


def ids_of(folder, composed, words):
    """The run ids in the order of the jobs."""
    points = sweep.grid.points(words, composed)
    cfg = sweep.settings(words, composed)
    return [sweep.identify(p, cfg, composed) for p in points]


def test_a_launcher_that_cannot_start_is_bad_input(composed, words):
    def launch(jobs, first):
        raise ConnectionError("no cluster at this address\nand a long story")

    with pytest.raises(
        BadInput, match=r"^the launcher could not start: ConnectionError: no cluster"
    ) as error:
        sweep.run(words, composed, launch)
    assert "\n" not in str(error.value)


def test_a_dead_batch_is_told_from_the_store_and_the_next_one_runs(composed, words, tmp_path, capsys):
    ids = ids_of(tmp_path / "T3", composed, words)
    calls = []

    def launch(jobs, first):
        calls.append((first, len(jobs)))
        if first == 0:  # the first run had begun and has a checkpoint, the second never began
            store.beat(tmp_path / "T3", ids[0], {"runs": [ids[0]], "status": "running", "step": 1, "steps": 2,
                                                 "seconds": 1.0, "profile": "smoke"})  # fmt: skip
            (tmp_path / "T3" / ids[0]).mkdir()
            (tmp_path / "T3" / ids[0] / "checkpoint.0.pt").touch()
            raise TimeoutError("job timed out")
        return [{ids[first]: "finished"}]

    outcome = sweep.run(words, composed, launch, at_once=2)
    assert calls == [(0, 2), (2, 1)]
    assert outcome.runs == {ids[0]: "interrupted", ids[1]: "lost", ids[2]: "finished"}
    assert outcome.exit_status == 1 and not outcome.interrupted
    assert "the launcher gave up: TimeoutError: job timed out" in capsys.readouterr().err


def test_beats_of_an_earlier_sweep_do_not_count_as_a_start(composed, words, tmp_path):
    (tmp_path / "T3").mkdir()
    store.beat(tmp_path / "T3", "old", {"runs": ["old"], "status": "finished", "step": 2, "steps": 2})
    time.sleep(0.01)

    def launch(jobs, first):
        raise RuntimeError("no srun here")

    with pytest.raises(BadInput, match="could not start"):
        sweep.run(words, composed, launch)


def test_ctrl_c_leaves_the_queue_undrawn(composed, words, tmp_path):
    """Launchers draw jobs one by one: of thousands that wait, none is composed any more."""
    ids, drawn = ids_of(tmp_path / "T3", composed, words), []

    def launch(jobs, first):
        assert len(jobs) == 3
        for job in jobs:
            drawn.append(job)
            os.kill(os.getpid(), signal.SIGINT)
            while not list((tmp_path / "T3").glob(".stop-*")):
                time.sleep(0.01)
        return [{ids[0]: "finished"}]

    outcome = sweep.run(words, composed, launch)
    assert len(drawn) == 1
    assert outcome.runs == {ids[0]: "finished", ids[1]: "interrupted", ids[2]: "interrupted"}
    assert outcome.exit_status == 130 and not list((tmp_path / "T3").glob(".stop-*"))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (("column=mnist", "seed=0"), "table=T3 profile=smoke"),  # on the grid: the comparison
        (
            ("column=mnist", "optimizer.lr=0.03"),
            "sweep table=T3 x=alpha y=test_error profile=smoke column=mnist optimizer.lr=0.03",
        ),
        (
            ("column=ni", "alpha=0.3,0.6", "optimizer.lr=0.1,0.2"),
            "sweep table=T3 x=alpha y=test_error x2=optimizer.lr"
            " profile=smoke column=ni alpha=0.3,0.6 optimizer.lr=0.1,0.2",
        ),
    ],
)
def test_a_sweep_ends_with_a_table_that_has_its_runs(composed, tmp_path, monkeypatch, typed, shown):
    words = ["table=T3", "profile=smoke", *typed, f"runs={tmp_path}"]
    ids = ids_of(tmp_path / "T3", composed, words)
    outcome = sweep.run(words, composed, lambda jobs, first: [dict.fromkeys(ids, "finished")])
    said = []
    monkeypatch.setattr(main.subprocess, "run", lambda command, **how: said.append(command[3:]))
    main.show(words, outcome)
    (command,) = said
    assert [w for w in command if not w.startswith("runs=")] == shown.split()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["T1", "T2", "T3", "T7", "T8", "T9"])
def test_every_point_of_cpu_has_a_paper_config_or_no_such_column(composed, table):
    """Columns of our own, as Imagenette, have none; composing them under `paper` is no error."""
    points = sweep.grid.points([f"table={table}", "profile=cpu", "seed=0"], composed)
    without = {p.column for p in points if sweep.grid.paper_config(p, composed) is None}
    assert without == ({"imagenette"} if table == "T1" else set())


def test_an_optional_column_without_its_data_is_left_out_with_a_line(composed, tmp_path):
    words = ["table=T2", "profile=cpu", "seed=0", f"data.root={tmp_path}", f"data.cache={tmp_path}"]
    cfg = sweep.settings(words, composed)
    points = sweep.grid.points(words, composed)
    kept, (line,) = sweep.drop_absent(points, words, cfg, composed)
    assert line.startswith("column=svhn is left out: data set svhn is missing: put train_32x32.mat")
    assert {p.column for p in points} - {p.column for p in kept} == {"svhn"} and len(points) - len(kept) == 3
    asked = [*words, "column=svhn"]
    points = sweep.grid.points(asked, composed)
    assert sweep.drop_absent(points, asked, cfg, composed) == (points, [])
    with pytest.raises(BadInput, match="svhn is missing"):
        sweep.identify(points[0], cfg, composed)


def test_a_trial_network_needs_no_other_processes(composed, monkeypatch, tmp_path):
    """One process of several tries the network alone, before it joins the others."""
    words = ["table=T1", "profile=smoke", "row=bn_x5", "seed=0", f"data.cache={tmp_path}"]
    (point,) = sweep.grid.points([*words, "model.width=0.0625"], composed)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep.why_unfit(point, composed) is None
    assert os.environ["WORLD_SIZE"] == "2"


def test_other_tables_refuse_texts_and_the_language_model_all_but_texts(composed):
    for table, data, why in (("T3", "kjv", "a text"), ("T8", "mnist5k", "wants a text")):
        with pytest.raises(BadInput, match=f"data={data}: .*{why}"):
            sweep.grid.points([f"table={table}", "profile=smoke", f"data={data}"], composed)


def test_a_trial_of_a_language_model(composed, tmp_path):
    """It has words enough for the smallest training and says what does not fit in a line."""
    words = ["table=T8", "profile=smoke", "row=small", f"data.cache={tmp_path}"]
    for typed, why in (
        ("norm=lstm_batch", None),
        ("norm=group", "an LSTM is normalised inside: choose one of"),
        ("norm=snn", "an LSTM is normalised inside"),
        ("model.gamma=1", "norm=none has no gains to start"),
    ):
        (point,) = sweep.grid.points([*words, typed], composed)
        found = sweep.why_unfit(point, composed)
        assert found is None if why is None else why in found, found


def test_another_normaliser_drops_the_methods_that_cannot_do_with_it(composed, tmp_path):
    """AdaBN needs batch statistics, the others on the same network do not; said once."""
    words = ["table=T10", "profile=smoke", "column=aw", "norm=group", f"data.cache={tmp_path}"]
    cfg = sweep.settings(words, composed)
    points = sweep.grid.points(words, composed)
    kept, lines = sweep.drop_unfit(points, words, cfg, composed)
    methods = ["source", "coral", "source_svm", "source_zscore", "sa", "gfk", "deep_coral", "dann"]
    assert [p.run.method for p in kept] == methods and len(lines) == 4
    assert all("has no statistics to adapt" in line for line in lines)
    assert all(sweep.grid.paper_config(p, composed) is not None for p in kept)


def test_the_closing_report_has_the_rows_that_the_typed_one_became(monkeypatch, tmp_path, capsys):
    """Another value of a switch of the recipe makes another row of what was typed as row=bn_x5."""
    asked = []
    monkeypatch.setattr(main.subprocess, "run", lambda words, **_: asked.append(words))
    outcome = sweep.Outcome(
        "T1", "smoke", "test_accuracy", tmp_path, True, {"a": "finished", "b": "finished"}, [],
        example={"recipe": {"rate": 5.0}}, axes=["recipe.rate"], rows=["bn_x1", "bn_x5"], columns=[],
        on_grid=True,
    )  # fmt: skip
    typed = ["table=T1", "profile=smoke", "row=bn_x5", "recipe.rate=1,5"]
    main.show(typed, outcome)
    assert "row=bn_x1,bn_x5" in asked[0] and "recipe.rate=1,5" in asked[0]
    outcome.rows = ["bn, decay=2.0", "bn_x5"]  # a name that no list can hold
    main.show(typed, outcome)
    assert not any(word.startswith("row=") for word in asked[1])
    outcome.report = False  # then the command is told: no comparison has runs off the grid
    main.show(typed, outcome)
    assert len(asked) == 2 and "python -m reports sweep table=T1" in capsys.readouterr().out


def test_the_closing_report_has_the_columns_that_the_typed_one_became(monkeypatch, tmp_path):
    """Another share makes another column; where the data lie is in no record."""
    asked = []
    monkeypatch.setattr(main.subprocess, "run", lambda words, **_: asked.append(words))
    outcome = sweep.Outcome(
        "T7", "smoke", "test_error", tmp_path, True, {"a": "finished", "b": "finished"}, [],
        example={"data": {"share": 1.0}}, axes=["data.share"], rows=[], columns=["wm25", "wm100"],
        on_grid=True,
    )  # fmt: skip
    typed = [
        "table=T7",
        "profile=smoke",
        "column=wm50",
        "data.share=0.25,1",
        "data.root=here",
        "data.cache=there",
    ]
    main.show(typed, outcome)
    assert "column=wm25,wm100" in asked[0] and "data.share=0.25,1" in asked[0]
    assert not any("data.root" in word or "data.cache" in word for word in asked[0])


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["smoke", "quick"])
@pytest.mark.parametrize("table", sorted(p.stem for p in (config.CONF / "table").glob("*.yaml")))
def test_the_data_of_grids_that_run_offline_exist(composed, table, profile, tmp_path):
    """The set and its options, as a sweep asks for them before it starts."""
    for run in distinct_data(
        [p.run for p in grid.points([f"table={table}", f"profile={profile}"], composed)]
    ):
        if games.is_game(run.data.name):
            continue  # no files: the game comes with a package of its extra
        place = sets.locate(run.data.name, tmp_path, tmp_path, run.data.options)
        assert place.files is not None, run.data


def test_a_typed_root_without_the_set_is_told(composed, tmp_path, monkeypatch, capsys):
    """What was prepared before from another root is used, but not silently."""
    words = ["table=T8", "profile=smoke", "column=ptb", "row=small", f"data.root={tmp_path / 'mispelt'}"]
    (point,) = sweep.grid.points(words, composed)
    monkeypatch.setattr(sweep, "_fingerprints", {})
    sweep.fingerprint(point, composed)
    assert capsys.readouterr().err == ""  # this set's source is in a package
    found = sweep.data.locate("kjv", None, None, {})._replace(files=None)
    monkeypatch.setattr(sweep.data, "locate", lambda *_: found)
    monkeypatch.setattr(sweep, "_fingerprints", {})
    for _ in range(2):
        sweep.fingerprint(point, composed)
    assert capsys.readouterr().err.count("nothing of kjv is there") == 1


@pytest.mark.parametrize("words", [["row=a0_5"], ["row=zzz", "column=mnist"]])
def test_a_row_where_rows_are_not_chosen_by_name(words, composed):
    """Table 3's rows are values of alpha: another word would quietly run another cell."""
    with pytest.raises(BadInput, match=r"T3 has no rows to choose by name; its points differ in alpha$"):
        grid.points(["table=T3", "profile=smoke", *words], composed)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["T1", "T2", "T3", "T4", "T7", "T8", "T9"])
def test_committed_records_fill_the_grid_as_it_is_composed_today(table, composed, tmp_path):
    """A sweep of one cell, or `make status`, leaves a grid of today's keys beside records of older ones."""
    measured = config.CONF.parent / "reports" / "measured"
    sweep.write_grid(table, composed, tmp_path / table, profile="quick")
    counts = []
    for runs in (tmp_path / "nothing", tmp_path):
        loaded = records.load(runs, measured, table=table)
        mine = loaded.frame[loaded.frame["table"] == table]
        found = matching.matched(mine, loaded.grid[table], "quick")
        counts.append(found[["match", "row", "column"]].value_counts().to_dict())
    assert counts[0] == counts[1] and counts[0]
