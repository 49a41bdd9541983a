"""From what is typed to runs: the grid of a table.

A *point* is one run that a config names. Grids are lists of sub-grids
(`conf/settings/<table>/<profile>.yaml`): a list is an axis, anything else is fixed for that sub-grid. What
the user types selects sub-grids, replaces axes or adds new ones:

    column=ni            keeps the sub-grids whose `column` is ni; the same for data= and model=
    alpha=0.3,0.6        replaces the axis alpha, and epochs=5 a fixed value
    optimizer.lr=0.1     adds an axis with one value

A single run is the first point of the grid that is left; a multirun is all of them.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data import is_game, is_table, is_text
from experiments.config import CONF, BadInput, coerce, digest, identity, is_group, plain, typed

Compose = Callable[[list[str]], DictConfig]


NAMING = ("column", "row")  # keys by which a table's sub-grids are named


@dataclass
class Point:
    """One run that the command line names: its config, and the words that make Hydra compose the same config
    again.
    """

    run: Any
    row: str
    column: str
    profile: str
    shared: list[str]  # overrides without the stackable axes
    member: dict[str, Any]  # values of the stackable axes, and `paper`
    population: int
    assignment: dict[str, str]  # every key of the grid and of the command line, as typed


def cached(compose: Compose) -> Compose:
    """Hydra takes a tenth of a second to compose a config, and a grid asks for the same few again and again.
    Without Hydra's own node.
    """
    known: dict[tuple[str, ...], DictConfig] = {}

    def compose_once(overrides: list[str]) -> DictConfig:
        key = tuple(overrides)
        if key not in known:
            cfg = compose(overrides)
            known[key] = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
        return known[key]

    return compose_once


def table_module(cfg: DictConfig) -> ModuleType:
    if not cfg.get("module"):
        available = ", ".join(sorted(p.stem for p in (CONF / "table").glob("*.yaml")))
        raise BadInput(f"no table given: say table=... (available: {available})")
    return importlib.import_module(cfg.module)


def parse(overrides: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides)


def values(override: Override) -> list[str]:
    """The values of one typed override, as they would be typed one by one."""
    if override.is_sweep_override():
        return [str(v) for v in override.sweep_iterator(transformer=Transformer.encode)]
    return [override.get_value_element_as_str()]


def read(text: str) -> Any:
    """A typed value as Hydra's grammar reads it: '0.5' -> 0.5, '[1,2]' -> [1, 2]."""
    return copy.deepcopy(_read(text))


@cache  # the grammar takes a millisecond, and a grid has the same few values thousands of times
def _read(text: str) -> Any:
    value = parse([f"x={text}"])[0].value()
    return value.text if isinstance(value, QuotedString) else value


def key_of(override: Override) -> str:
    """The key as typed, with Hydra's + or ++ for one that is added."""
    return ("++" if override.is_force_add() else "+" if override.is_add() else "") + str(
        override.get_key_element()
    ).lstrip("+")


def as_axis(word: str) -> str:
    """A key of a group, such as model.hidden=[5,5], as an axis of one value. Hydra would put it into the
    sweep's own config, where there is no model yet: the grid brings it, point by point.
    """
    key, _, value = word.partition("=")
    group, dot, _ = key.lstrip("+").partition(".")
    typed_in = value and dot and group != "hydra" and is_group(group)
    if not typed_in or parse([word])[0].is_sweep_override():
        return word
    return f"{key}=null,null" if value == "null" else f"{key}=choice({value})"  # choice(null) is not read


def head(typed_in: list[Override]) -> list[str]:
    """What is typed but is no axis: the table, the profile, and Hydra's deletions (~key)."""
    out = []
    for o in typed_in:
        if o.is_delete():
            out.append(o.input_line or "")
        elif o.get_key_element() in ("table", "profile"):
            if len(values(o)) > 1:
                raise BadInput(
                    f"{o.input_line}: one {o.get_key_element()} a sweep; start one command for each"
                )
            out.append(o.input_line or "")
    return out


def expand(overrides: list[str], compose: Compose) -> list[dict[str, str]]:
    """All points of the grid as {key: typed value}, seeds outermost so that a first seed of every cell is
    done early.
    """
    found: list[dict[str, str]] = []
    parts: dict[str, dict[str, int]] = {}  # places of the values of data.*, which come next: a table of many
    for axes in subgrids(overrides, compose):  # sets is whole for the first of them when it is interrupted
        keys = sorted(axes, key=lambda k: k != "seed")
        found += [
            dict(zip(keys, combo, strict=True)) for combo in itertools.product(*(axes[k] for k in keys))
        ]
        for k in keys:
            if k.startswith("data."):
                for value in axes[k]:
                    parts.setdefault(k, {}).setdefault(value, len(parts[k]))

    def order(p: dict[str, str]) -> tuple[int, ...]:
        seed = int(p["seed"]) if p.get("seed", "0").isdigit() and "seed" in p else 0
        return seed, *(places.get(p.get(k, ""), -1) for k, places in parts.items())

    return sorted(found, key=order)


def many(value: Any) -> bool:
    return isinstance(value, list | ListConfig) and len(value) > 1


def subgrids(overrides: list[str], compose: Compose, variants: bool = True) -> list[dict[str, list[str]]]:
    """The table's sub-grids with what was typed put in, each as {key: values as typed}. `variants`: with
    those that are another variant than the primary one, and so no points of the table.
    """
    typed_in = parse(overrides)
    first = head(typed_in)
    mine = {key_of(o): values(o) for o in typed_in if (o.input_line or "") not in first}
    cfg = compose(first)
    table_module(cfg)
    own = listed(cfg) or [{}]
    for key in NAMING:
        if key in mine and mine[key] != ["null"] and not any(key in g for g in own):
            varied = dict.fromkeys(k for g in own for k in g if k != "seed" and many(g[k]))
            raise BadInput(
                f"{key}={','.join(mine[key])}: {cfg.table} has no {key}s to choose by name; its points differ"
                f" in {', '.join(varied) or 'nothing but the seed'}"
            )
    selecting = [k for k in mine if (k in NAMING or is_group(k)) and any(k in g for g in own)]
    kept = list(own)
    for key in sorted(selecting, key=lambda k: k not in NAMING):
        known = {str(g.get(key)) for g in kept}
        unknown = [v for v in mine[key] if v not in known]
        if unknown and key in NAMING:
            names = ", ".join(dict.fromkeys(str(g[key]) for g in own if key in g))
            told = f"{key}={','.join(unknown)}"
            if all(v in {str(g.get(key)) for g in own} for v in unknown):  # but not with what else was typed
                there = ", ".join(sorted(str(v) for v in known))
                typed = " ".join(f"{k}={','.join(mine[k])}" for k in selecting if k in NAMING and k != key)
                raise BadInput(f"{told}: {typed} has no such {key} (it has {there})")
            raise BadInput(f"{told}: unknown {key} (profile {cfg.profile} has {names})")
        # A value that the grid does not know, such as the user's own data, takes the place of the one that
        # all sub-grids have, else of the first sub-grid's. What the grid says of the old data goes with them,
        # but for the share in use, which is a column's (Table 7).
        places = kept if len(known) == 1 else kept[:1]
        others = [
            {**{k: w for k, w in g.items() if key != "data" or not of_data(k)}, key: v}
            for v in unknown
            for g in places
        ]
        kept = [g for g in kept if str(g.get(key)) in mine[key]] + others
    found = []
    for g in kept:
        if g.get("variant") and not variants:
            continue
        g = {k: v for k, v in g.items() if k != "variant"}
        axes = {k: [str(x) for x in v] if isinstance(v, list) else [str(v)] for k, v in g.items()}
        found.append(axes | {k: v for k, v in mine.items() if k not in selecting})
    return found


def listed(cfg: DictConfig) -> list[dict[str, Any]]:
    """The sub-grids of a config. A long grid is better a text in the settings, a YAML document with the list
    under `grid`: Hydra copies a config over and over on its way, half a second for a hundred sub-grids.
    """
    if isinstance(cfg.grid, str):
        return [dict(g) for g in _parsed(cfg.grid)]
    found: Any = OmegaConf.to_container(cfg.grid, resolve=True)
    return list(found)


@cache
def _parsed(text: str) -> list[dict[str, Any]]:
    found: Any = OmegaConf.to_container(OmegaConf.create(text))
    return list(found["grid"])


def own_norms(cfg: DictConfig) -> set[str]:
    """The normalisers that the table's own grid has."""
    return {str(cfg.norm.name), *(str(g["norm"]) for g in listed(cfg) if "norm" in g)}


def points(
    overrides: list[str], compose: Compose, assignments: list[dict[str, str]] | None = None
) -> list[Point]:
    """Every point typed, checked before anything starts; of all that `overrides` name, or of these. Points
    that differ only in what has no effect are one point.
    """
    first = head(parse(overrides))
    out: dict[str, Point] = {}
    bases: dict[tuple[str, ...], tuple[DictConfig, Any, set[str]]] = {}
    begun: dict[tuple[Any, ...], tuple[Any, str, int]] = {}  # typed, by all but the values of the search
    for assignment in expand(overrides, compose) if assignments is None else assignments:
        groups = [
            f"{k}={v}" for k, v in assignment.items() if is_group(k) or k.startswith("+")
        ]  # what only Hydra can put in
        plain_values = {k: v for k, v in assignment.items() if not is_group(k) and not k.startswith("+")}
        if tuple(groups) not in bases:
            whole = compose(first + groups)
            small = OmegaConf.masked_copy(
                whole, [str(k) for k in whole if k != "grid"]
            )  # that is long to copy
            table = table_module(whole)
            bases[tuple(groups)] = small, table, {*table.STACK, *whole.trials} - {*NAMING}
        # Thousands of points differ in values of the search alone: those are put into a run typed before.
        base, table, search = bases[tuple(groups)]
        searched = {k: v for k, v in plain_values.items() if k in search}
        named = {*NAMING} & {*table.STACK}  # decided by the run itself, in such a table
        rest = {k: v for k, v in plain_values.items() if k not in searched and k not in named}
        key = (*groups, *rest.items(), *searched)
        if key not in begun:
            cfg = with_values(base, plain_values)
            run = typed(table.Run, cfg)
            check_layer(run.norm.name)
            at_least_1("population", cfg.population)
            begun[key] = run, cfg.profile, int(cfg.population)
        run, profile, population = begun[key]
        device = str(plain_values.get("device", base.device))
        for k, v in searched.items():
            run = replaced(run, k, read(v))
        run = table.check(run)
        for limit in ("limit_train", "limit_eval"):
            at_least_1(f"data.{limit}", getattr(run.data, limit), none=True)
        if is_game(run.data.name) and (typed_in := [k for k in ROWS_OF if k in assignment]):
            raise BadInput(f"{typed_in[0]}={assignment[typed_in[0]]}: a game has no rows; leave it out")
        check_share(run.data.share, hasattr(table, "SHARE"))
        if base.pictures and is_table(run.data.name):
            raise BadInput(f"data={run.data.name}: rows of numbers; this table wants pictures")
        if is_text(run.data.name) and not base.texts:
            raise BadInput(f"data={run.data.name}: a text; it is for the language models of table=T8")
        if is_game(run.data.name) and not base.games:
            raise BadInput(f"data={run.data.name}: a game; it is for the agents of table=T4")
        row, column = table.cell(run)
        stack = table.STACK if table.can_stack(run) and pays(table, run, device) else ()
        out.setdefault(
            digest(identity(run)),
            Point(
                run=run,
                row=row,
                column=column,
                profile=profile,
                shared=[*first, *groups, *(f"{k}={v}" for k, v in plain_values.items() if k not in stack)],
                member={k: read(assignment[k]) for k in stack if k in assignment},
                population=population if stack else 1,
                assignment=assignment,
            ),
        )
    return list(out.values())


def pays(table: ModuleType, run: Any, device: str) -> bool:
    """Whether a population of such runs is faster than they are one by one: on a GPU always, on a CPU the
    table says.
    """
    asked = getattr(table, "pays_on_cpu", None)
    return asked is None or asked(run) or has_gpu(device)


@cache
def has_gpu(device: str) -> bool:
    import torch

    return torch.cuda.is_available() if device == "auto" else not device.startswith("cpu")


def replaced(run: Any, key: str, value: Any, whole: str = "") -> Any:
    """The run with another value at a dotted key, of the type that the key has."""
    whole = whole or key
    head, _, rest = key.partition(".")
    if isinstance(run, dict):
        return {**run, key: value}
    inner = getattr(run, head)
    new = replaced(inner, rest, value, whole) if rest else coerce(type(run), head, value, whole)
    return replace(run, **{head: new})


@dataclass
class Pattern:
    """Many points in one: those whose config is this one, with each of `axes` at one of its values. The
    tables of trials, whose grids are long, are noted so.
    """

    row: str
    column: str | None  # None where an axis decides it
    config: dict[str, Any]  # without the seed and the axes
    axes: dict[str, list[Any]]

    @property
    def size(self) -> int:
        return math.prod(map(len, self.axes.values()))

    def configs(self) -> Iterator[dict[str, Any]]:
        """Each point's config, without the seed."""
        for combo in itertools.product(*self.axes.values()):
            config = copy.deepcopy(self.config)
            for key, value in zip(self.axes, combo, strict=True):
                put(config, key, value)
            yield config


def put(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = value


def drop(config: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config = config.get(parent, {})
    config.pop(last, None)


def patterns(overrides: list[str], compose: Compose) -> list[Pattern]:
    """The grid of a table that names the axes of its trials (`trials` in conf/table/<table>.yaml)."""
    trials = list(compose(head(parse(overrides))).trials)
    found = []
    for axes in subgrids(overrides, compose, variants=False):
        inner = {k: v for k, v in axes.items() if k in trials}
        outer = {k: v for k, v in axes.items() if k not in trials and k != "seed"}
        for combo in itertools.product(*outer.values()):
            fixed = dict(zip(outer, combo, strict=True))
            firsts = {k: v[0] for k, v in inner.items()}
            point = points(overrides, compose, [{**fixed, **firsts, "seed": axes.get("seed", ["0"])[0]}])[0]
            last = points(
                overrides, compose, [{**fixed, **{k: v[-1] for k, v in inner.items()}, "seed": "0"}]
            )[0]
            config = plain(point.run)
            for key in ("seed", *inner):
                drop(config, key)
            values = {k: list(dict.fromkeys(map(read, v))) for k, v in inner.items()}
            column = point.column if point.column == last.column else None
            found.append(Pattern(point.row, column, config, values))
    return found


def of_data(key: str) -> bool:
    return key.lstrip("+").startswith("data.") and key != "data.share"


ROWS_OF = ("data.val_fraction", "data.limit_train", "data.limit_eval", "data.share")  # of a data set


def check_share(share: float, taken: bool) -> None:
    """`taken`: the table has halves. Others keep what they fit to a training part under its limit_train."""
    if not 0 < share <= 1:
        raise BadInput(f"data.share={share:g}: a share above 0, up to 1")
    if share != 1 and not taken:
        raise BadInput(f"data.share={share:g}: this table trains on all there is; give data.limit_train=N")


def at_least_1(key: str, value: Any, none: bool = False) -> None:
    if not ((none and value is None) or (type(value) is int and value >= 1)):
        raise BadInput(f"{key}={value}: give a whole number from 1")


@cache
def check_layer(name: str) -> None:
    """A layer's name is one of conf/norm/ or the dotted path of a class whose module can be found."""
    known = sorted(p.stem for p in (CONF / "norm").glob("*.yaml") if p.stem != "custom")
    module = name.rpartition(".")[0]
    try:
        found = name in known or bool(module and importlib.util.find_spec(module))
    except (ImportError, ValueError):
        found = False
    if not found:
        raise BadInput(
            f"norm.name={name}: no such layer; one of {', '.join(known)}, or the dotted path of a class"
            " in a module that Python finds (PYTHONPATH)"
        )


def with_values(cfg: DictConfig, assignment: dict[str, str]) -> DictConfig:
    """The composed config with plain values put in, what Hydra would do for `key=value`, without composing
    anew.
    """
    cfg = cfg.copy()
    for k, v in assignment.items():
        try:
            parent, _, last = k.rpartition(".")
            node = OmegaConf.select(cfg, parent) if parent else cfg
            keys = (
                list(node) if OmegaConf.is_dict(node) else []
            )  # `in` would not see a key whose value is ???
            if last not in keys:
                if parent == "model" and "name" in keys:
                    raise BadInput(
                        f"{k}={v}, of the command or the table's grid: model={node.name} has no {last}"
                    )
                raise BadInput(f"{k}={v}: no such key (see --cfg job for the keys; +{k}={v} adds one)")
            OmegaConf.update(cfg, k, read(v))
        except OmegaConfBaseException as e:
            raise BadInput(f"{k}={v}: {str(e).splitlines()[0]}") from e
    return cfg


def paper_config(point: Point, compose: Compose) -> dict[str, Any] | None:
    """The same point of the grid under the paper profile, without the seed; None where the table has no such
    column.

    Carried over are the normaliser, the stackable axes and the primary variant's keys; all else is the paper
    profile's. In a table of trials, an axis of the search has the list of its values.
    """
    names = [k for k in NAMING if k in point.assignment]
    if not names:
        return None
    table = point.run.table
    base = compose([f"table={table}", "profile=paper"])
    columns = {str(g["column"]) for g in listed(base) if "column" in g}
    if columns and point.assignment.get("column", next(iter(columns))) not in columns:
        return None
    carried = {
        k: v
        for k, v in point.assignment.items()
        if k in ("norm", "alpha", *base.get("primary", {})) or k.lstrip("+").startswith("norm.")
    }
    # Rows may have settings of their own; a row that the paper profile does not have has its column's.
    has = {(k, str(g[k])) for g in listed(base) for k in names if k in g}
    kept = [k for k in names if k == names[0] or (not base.trials and (k, point.assignment[k]) in has)]
    words = [
        f"table={table}",
        "profile=paper",
        *(f"{k}={point.assignment[k]}" for k in kept),
        "seed=0",
        *(f"{k}={v}" for k, v in carried.items()),
    ]
    if base.trials:
        found = patterns(words, compose)[0]
        for key, values in found.axes.items():
            if key != "data.options.set":
                put(found.config, key, values)
        return found.config
    config = plain(points(words, compose)[0].run)
    config.pop("seed", None)
    return config


def jobs(todo: list[Point]) -> list[list[Point]]:
    """Points folded into jobs: same config but for the stackable axes, at most `population` members each, in
    the points' order.
    """
    alike: dict[tuple[str, ...], list[tuple[int, Point]]] = {}
    for i, p in enumerate(todo):
        alike.setdefault(tuple(p.shared), []).append((i, p))
    folded = []
    for group in alike.values():
        size = group[0][1].population
        folded += [group[i : i + size] for i in range(0, len(group), size)]
    return [[p for _, p in job] for job in sorted(folded, key=lambda job: job[0][0])]


def job_overrides(job: list[Point]) -> list[str]:
    """The override list that makes Hydra compose this job; its members differ only in what `members` says."""
    return [*job[0].shared, "members=" + _grammar([p.member for p in job])]


def _grammar(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_grammar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_grammar(v) for v in value) + "]"
    return "null" if value is None else str(value)


def members(cfg: DictConfig) -> list[tuple[Any, str | None]]:
    """The runs of one job, each with the key of its config under the paper profile.

    The config itself, or the config with each member's own values put in.
    """
    table = table_module(cfg)
    out = []
    owns: Any = OmegaConf.to_container(cfg.members, resolve=True) if cfg.get("members") else [{}]
    # Without the sub-grids and the members, which no run is read from: they are long to copy.
    bare = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k not in ("grid", "members", "hydra")])
    for own in owns:
        one = bare.copy()
        for k, v in own.items():
            OmegaConf.update(one, k, v)
        out.append((table.check(typed(table.Run, one)), one.paper))
    return out
