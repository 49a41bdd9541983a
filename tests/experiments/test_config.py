"""Grids, typed configs and identities."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import data
import norms
from experiments import config, grid
from experiments import table_03_dbn as t3
from experiments.config import BadInput

GOLDEN = Path(__file__).with_name("golden_run_ids.json")
FINGERPRINT = "0123456789abcdef"


def points(composed, *words):
    return grid.points(list(words), composed)


# ---- the grid ----


@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_every_profile_composes_to_ten_alphas_on_three_data_sets(composed, profile):
    found = points(composed, "table=T3", f"profile={profile}")
    cells = {(p.row, p.column) for p in found}
    assert cells == {
        (r, c) for r in [*t3.ROW.values(), *t3.ROW_WORDS.values()] for c in ("mnist", "ni", "cifar10")
    }
    seeds = {p.run.seed for p in found}
    assert (
        len(found) == 30 * len(seeds)
        and len(seeds) >= {"smoke": 1, "quick": 3, "cpu": 5, "paper": 5}[profile]
    )


def test_paper_profile_is_the_source_papers_protocol(composed):
    found = {p.column: p.run for p in points(composed, "table=T3", "profile=paper")}
    for run in found.values():
        assert (run.batch_size, run.optimizer.name, run.optimizer.lr) == (100, "Adagrad", 0.01)
    assert found["mnist"].model.hidden == [300, 300] and found["ni"].model.hidden == [50, 50]
    assert [found[c].epochs for c in ("mnist", "ni", "cifar10")] == [200, 100, 50]
    assert [found[c].data.name for c in ("mnist", "ni", "cifar10")] == ["mnist", "kddcup99", "cifar10"]


def test_an_override_replaces_its_own_axis(composed):
    found = points(composed, "table=T3", "alpha=0.3,0.6", "optimizer.lr=0.01,0.03", "seed=7", "column=mnist")
    assert {(p.run.alpha, p.run.optimizer.lr, p.run.seed) for p in found} == {
        (a, lr, 7) for a in (0.3, 0.6) for lr in (0.01, 0.03)
    }


def test_a_fixed_key_selects_sub_grids_and_brings_the_rest(composed):
    (found,) = {
        (p.run.data.name, p.run.model.name, p.run.epochs)
        for p in points(composed, "table=T3", "column=cifar10")
    }
    assert found == ("glyphs", "cnn", 7)
    assert points(composed, "table=T3", "data=glyphs", "alpha=1", "seed=0") == points(
        composed, "table=T3", "column=cifar10", "alpha=1", "seed=0"
    )


def test_a_data_set_the_grid_does_not_know_takes_the_first_sub_grid(composed):
    found = points(composed, "table=T3", "data=folder", "data.path=/pictures", "alpha=1", "seed=0")
    assert [(p.run.data.name, p.run.model.name, p.column) for p in found] == [("folder", "mlp", "folder")]


def test_seeds_are_outermost(composed):
    seeds = [p.run.seed for p in points(composed, "table=T3")]
    assert seeds == sorted(seeds)


def test_other_normalisers_have_no_alpha_axis(composed):
    found = points(composed, "table=T3", "norm=batch,group", "column=mnist", "seed=0")
    assert [(p.row, p.run.alpha, p.run.reading) for p in found] == [
        ("batch", None, None),
        ("group", None, None),
    ]


def test_jobs_fold_stackable_axes_up_to_the_population(composed):
    jobs = grid.jobs(points(composed, "table=T3", "profile=quick", "column=ni,cifar10"))
    sizes = {}
    for job in jobs:
        sizes.setdefault(job[0].column, []).append(len(job))
        assert len({tuple(p.shared) for p in job}) == 1
    assert sizes == {"ni": [15, 15], "cifar10": [1] * 30}


def test_a_job_composes_to_its_members(composed):
    job = grid.jobs(points(composed, "table=T3", "profile=smoke", "column=ni"))[0]
    cfg = composed(grid.job_overrides(job))
    assert [r for r, _ in grid.members(cfg)] == [p.run for p in job] and len(job) == 10


def test_paper_counterpart_keeps_alpha_and_variant(composed):
    (p,) = points(composed, "table=T3", "profile=smoke", "column=ni", "alpha=inv_m2", "reading=A", "seed=0")
    paper = grid.paper_config(p, composed)
    assert (paper["alpha"], paper["reading"], paper["data"]["name"], paper["epochs"]) == (
        "inv_m2",
        "A",
        "kddcup99",
        100,
    )
    assert "seed" not in paper


# ---- conf/ against the code ----


def test_conf_offers_every_norm_and_every_data_set():
    def options(group):
        return {p.stem for p in (config.CONF / group).glob("*.yaml")}

    assert options("norm") == set(norms.names()) | {"custom"}
    assert options("data") == set(data.names())
    assert {p.stem for p in (config.CONF / "table").glob("*.yaml")} == {
        p.name for p in (config.CONF / "settings").iterdir()
    }
    for table in (config.CONF / "settings").iterdir():
        assert {p.stem for p in table.glob("*.yaml")} == options("profile")


@pytest.mark.parametrize("path", sorted(config.CONF.glob("norm/*.yaml")), ids=lambda p: p.stem)
def test_norm_files_name_themselves(path):
    name = yaml.safe_load(path.read_text())["name"]
    assert name == ("???" if path.stem == "custom" else path.stem)


# ---- bad input ----


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["alpha=-0.1"], "alpha=-0.1"),
        (["alpha=1.5"], "alpha=1.5"),
        (["alpha=fast"], "alpha=fast"),
        (["alpha=nan"], "alpha=nan"),
        (["alpha=null"], "alpha=None"),
        (["optimizer.lr=0"], "optimizer.lr=0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: expected a number"),
        (["epochs=0"], "epochs=0"),
        (["epochs=2.5"], "epochs=2.5: expected a whole number"),
        (["batch_size=1"], "batch_size=1"),
        (["seed=-1"], "seed=-1"),
        (["reading=D"], "reading=D"),
        (["column=svhn"], "column=svhn"),
        (["alpa=0.5"], "alpa=0.5: no such key"),
        (["model.hidden=[]"], "model.hidden=[]"),
        (["norm=custom"], "norm.name is not set"),
        (["data.val_fraction=1"], "data.val_fraction=1"),
    ],
)
def test_bad_values_are_one_line_that_names_them(composed, words, what):
    with pytest.raises(BadInput, match=r"^[^\n]+$") as e:
        points(composed, "table=T3", *words)
    assert what in str(e.value)


def test_two_tables_or_profiles_in_one_sweep_are_refused(composed):
    with pytest.raises(BadInput, match="one profile a sweep"):
        points(composed, "table=T3", "profile=quick,smoke")
    with pytest.raises(BadInput, match=r"no table given.*T3"):
        points(composed, "alpha=1")


# ---- identity ----


def test_golden_run_ids(composed):
    """Ids are how finished runs are found again: a change of this file makes everybody's results unfindable,
    so it is a decision.
    """
    found = {
        f"{p.profile} {p.column} {p.row}": config.run_id(p.run, FINGERPRINT)
        for profile in ("smoke", "paper")
        for p in points(composed, "table=T3", f"profile={profile}", "seed=0")
    }
    assert found == json.loads(GOLDEN.read_text())


def test_what_does_not_change_a_result_does_not_change_the_id(composed):
    (a,) = points(composed, "table=T3", "column=ni", "alpha=1", "seed=0")
    (b,) = points(
        composed,
        "table=T3",
        "column=ni",
        "alpha=1.0",
        "seed=0",
        "device=cpu",
        "threads=2",
        "tracking=wandb",
        "data.root=/x",
        "checkpoint_every=1",
        "population=3",
    )
    assert config.run_id(a.run, FINGERPRINT) == config.run_id(b.run, FINGERPRINT)


def test_alone_and_in_a_population_a_run_has_one_id(composed):
    job = grid.jobs(points(composed, "table=T3", "profile=smoke", "column=ni"))[0]
    together = [r for r, _ in grid.members(composed(grid.job_overrides(job)))]
    alone = [
        points(composed, "table=T3", "profile=smoke", "column=ni", f"alpha={p.run.alpha}", "seed=0")[0].run
        for p in job
    ]
    assert [config.run_id(r, FINGERPRINT) for r in together] == [config.run_id(r, FINGERPRINT) for r in alone]


def test_a_key_added_later_with_its_default_changes_no_id(composed):
    (p,) = points(composed, "table=T3", "column=ni", "alpha=1", "seed=0")
    later = make_dataclass(
        "Run",
        [("clip", float, field(default=0.0)), ("extra", list[int], field(default_factory=list))],
        bases=(t3.Run,),
        kw_only=True,
    )
    now = later(**{f: getattr(p.run, f) for f in p.run.__dataclass_fields__})
    assert config.run_id(now, FINGERPRINT) == config.run_id(p.run, FINGERPRINT)
    assert config.run_id(replace(now, clip=1.0), FINGERPRINT) != config.run_id(p.run, FINGERPRINT)


def test_every_result_relevant_key_changes_the_id(composed):
    (p,) = points(composed, "table=T3", "column=cifar10", "alpha=1", "seed=0")
    seen = {config.run_id(p.run, FINGERPRINT), config.run_id(p.run, "another")}
    for word in (
        "seed=1",
        "epochs=11",
        "reading=A",
        "initial=zero_zero",
        "unit=step",
        "placement=after",
        "optimizer.lr=0.02",
        "optimizer.l2=0",
        "optimizer.options.eps=1",
        "model.dropout=[0,0,0]",
        "data.limit_train=5",
        "+norm.options.eps=0.1",
    ):
        seen.add(
            config.run_id(
                points(composed, "table=T3", "column=cifar10", "alpha=1", "seed=0", word)[0].run, FINGERPRINT
            )
        )
    assert len(seen) == 14


numbers = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False, width=32)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=8,
)


@given(values)
def test_canonical_json_reads_back_to_equal_values(value):
    assert json.loads(config.canonical(value)) == value


@given(st.dictionaries(st.text(max_size=4), numbers, max_size=5))
def test_canonical_json_ignores_order_and_number_kind(value):
    other = {k: float(v) for k, v in reversed(value.items())}
    assert config.canonical(other) == config.canonical({k: float(v) for k, v in value.items()})


@dataclass
class Inner:
    rate: float


@dataclass
class Outer:
    inner: Inner
    sizes: list[int]
    word: str


def test_typed_takes_whole_numbers_as_floats_and_nothing_else(composed):
    from omegaconf import OmegaConf

    out = config.typed(
        Outer, OmegaConf.create({"inner": {"rate": 1, "other": 5}, "sizes": [1, 2], "word": "x"})
    )
    assert out == Outer(Inner(1.0), [1, 2], "x") and isinstance(out.inner.rate, float)
    for bad in ({"inner": {"rate": True}}, {"sizes": 3}, {"sizes": [1.5]}, {"word": 3}, {"inner": 4}):
        with pytest.raises(BadInput):
            config.typed(Outer, OmegaConf.create({"inner": {"rate": 1}, "sizes": [1], "word": "x", **bad}))


def test_a_plain_override_keeps_the_whole_grid(composed):
    found = points(composed, "table=T3", "profile=smoke", "epochs=1")
    assert len(found) == 30 and {p.run.epochs for p in found} == {1}


# ---- what is typed beside the grid ----


def test_values_the_grid_does_not_know_run_beside_those_it_knows(composed):
    found = points(composed, "table=T3", "profile=smoke", "column=mnist", "data=mnist5k,glyphs", "alpha=0.1")
    assert [p.run.data.name for p in found] == ["mnist5k", "glyphs"]
    found = points(composed, "table=T3", "profile=smoke", "column=mnist", "model=mlp,cnn", "alpha=0.1")
    assert [p.run.model.hidden for p in found] == [[30, 30], [30]]  # of the grid's widths, what each can use
    assert [p.run.model.name for p in found] == ["mlp", "cnn"]
    with pytest.raises(BadInput, match=r"^column=foo: unknown column"):
        points(composed, "table=T3", "column=mnist,foo")


def test_a_key_of_a_group_becomes_an_axis_of_one_value(composed):
    assert grid.as_axis("model.hidden=[5,5]") == "model.hidden=choice([5,5])"
    assert grid.as_axis("+norm.options.eps=1e-3") == "+norm.options.eps=choice(1e-3)"
    assert grid.values(grid.parse([grid.as_axis("data.limit_train=null")])[0]) == ["null", "null"]
    for same in (
        "alpha=0.5",
        "model=mlp",
        "optimizer.lr=0.1,0.2",
        "hydra.launcher.n_jobs=2",
        "model.hidden=",
    ):
        assert grid.as_axis(same) == same
    words = ("table=T3", "column=mnist", "alpha=0.5", "seed=0")
    typed, axis = (points(composed, *words, w) for w in ("model.hidden=[5,5]", "model.hidden=choice([5,5])"))
    assert [p.run for p in typed] == [p.run for p in axis] and typed[0].run.model.hidden == [5, 5]


def test_widths_a_network_has_no_use_for_make_no_other_runs(composed):
    """An MLP has no convolutions: `model.widths` over two values is one run."""
    words = "table=T3", "profile=smoke", "column=mnist", "alpha=0.1", "model=mlp"
    assert len(points(composed, *words, "model.widths=[8,8],[4,4]")) == len(points(composed, *words)) == 1
