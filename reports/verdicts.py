"""What the records say of a claim: margin, interval, verdict, and what the verdict rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from reports import claims as claim_room
from reports import power
from reports.published import Claim, Published
from reports.statistics import FEWEST, Interval, Judge, cells_of, smallest

FEW = 3  # cells with runs at chance that are named one by one
VERDICTS = ("supported", "contradicted", "inconclusive", "not comparable", "not run")


@dataclass
class Component:
    """One part of a claim, in the claim's order, with its own interval at 95 %."""

    name: str
    column: str
    margin: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str  # as for claims; parts that are not comparable or not run have no interval
    why: str = ""


@dataclass
class ClaimResult:
    id: str
    sentence: str
    inequality: str
    survey: tuple[float | None, str]  # margin of the worst part (None = n/a), holds | fails | n/a
    source: tuple[float | None, str]
    margin: float | None  # ours: the worst part's margin; > 0 means that the claim is met
    low: float | None
    high: float | None
    n: int  # the fewest seeds behind any part
    verdict: str  # one of VERDICTS
    label: str  # what the verdict rests on: "", "on mnist5k (stand-in); without ni (kdd_keel: mechanics)"
    why: str
    components: list[Component] = field(default_factory=list)
    says: str = ""  # what the source says where it prints no figures, as in published.Claim
    repeats: str = ""
    cells: tuple[tuple[str, str], ...] = ()  # (row, column) of those that it compares
    effect: float | None = None  # margin over the sd of one seed's margin, of the part that decides
    needed: float | None = None  # of an inconclusive claim: seeds that would decide it; infinity: none would
    seeds: tuple[float, ...] = ()  # the margin of each seed alone


@dataclass(frozen=True)
class Basis:
    """What a column's runs rest on: data set, its standing, and whether data and epochs are the paper's."""

    column: str
    data: str
    standing: str
    as_paper: bool


def result(
    claim: Claim,
    function: Any,
    published: Published,
    judge: Judge,
    bases: dict[str, Basis],
    stuck: dict[tuple[str, str], tuple[int, int]],
    short: dict[str, float],
) -> ClaimResult:
    """The claim on the survey's, the source's and our figures. stuck: (row, column) -> (runs at chance,
    all runs), where there are any; short: column -> share of the published length, where that is small.
    """
    parts = function(claim_room.Measured(published))
    components = [component(part, judge, [bases[c] for c in part.columns]) for part in parts]
    usable = [i for i, c in enumerate(components) if c.margin is not None]
    missing = [c for c in components if c.verdict == "not run"]
    found: Interval | None = None
    told_more: dict[str, Any] = {}
    if usable:
        margin = smallest([parts[i].margin for i in usable])
        found = judge.interval(margin)
        verdict = found.verdict
        if missing and verdict != "contradicted":
            verdict = "inconclusive"
        why = explained(verdict, found, [components[i] for i in usable], len(missing), len(parts))
        told_more = spread(judge, margin, open_=verdict == "inconclusive" and not missing)
    else:
        verdict = "not run" if missing else "not comparable"
        reasons: dict[str, dict[str, None]] = {}  # text -> columns
        for c in components:
            if c.verdict == "not comparable":
                column, _, text = c.why.partition(": ")
                reasons.setdefault(text, {})[column] = None
        told = [f"{len(missing)} of {len(parts)} parts not run"] if missing else []
        why = "; ".join(told + [f"{', '.join(columns)}: {text}" for text, columns in reasons.items()])
    return ClaimResult(
        id=claim.id,
        sentence=claim.sentence,
        inequality=claim.inequality,
        survey=claim_room.on_printed(function, published, "survey"),
        source=claim_room.on_printed(function, published, "source"),
        margin=found.margin if found else None,
        low=finite(found.low) if found else None,
        high=finite(found.high) if found else None,
        n=found.n if found else 0,
        verdict=verdict,
        label="; ".join(
            word
            for word in (
                label_of([parts[i] for i in usable], components, bases),
                hardly_trained([parts[i] for i in usable], stuck),
                hardly_begun([parts[i] for i in usable], short),
            )
            if word
        ),
        why=why,
        components=components,
        says=claim.says,
        repeats=claim.repeats,
        cells=tuple(
            dict.fromkeys((row, column) for part in parts for row, column, _ in sorted(cells_of(part.margin)))
        ),
        **told_more,
    )


def spread(judge: Judge, margin: Any, open_: bool) -> dict[str, Any]:
    """Effect size, seeds needed (of an open claim) and each seed's margin, as fields of ClaimResult."""
    needed = power.seeds_needed(judge, margin) if open_ else math.nan
    return {
        "effect": finite(power.effect_size(judge, margin)),
        "needed": None if math.isnan(needed) else needed,
        "seeds": tuple(power.by_seed(judge, margin).values()),
    }


def component(part: claim_room.Part, judge: Judge, bases: list[Basis]) -> Component:
    column = ", ".join(b.column for b in bases)

    def without(verdict: str, why: str) -> Component:
        return Component(part.name, column, None, None, None, 0, verdict, why)

    for b in bases:
        if b.standing == "mechanics":
            return without("not comparable", f"{b.column}: {b.data} is a check of mechanics only")
        if b.standing == "unknown":
            return without("not comparable", f"{b.column}: {b.data} does not stand for the published column")
        if b.data in part.not_on:
            return without("not comparable", f"{b.column}: {b.data} has not the domains that it names")
    if not cells_of(part.margin) & judge.samples.keys():  # nothing of it, whatever else of the column ran
        return without("not run", "")
    for b in bases:
        if part.absolute and not b.as_paper:
            why = f"{b.column}: an absolute threshold needs the paper's data and epochs"
            return without("not comparable", why)
    if not cells_of(part.margin) <= judge.samples.keys():
        return without("not run", "")
    assert not isinstance(part.margin, float)
    found = judge.interval(part.margin)
    return Component(
        part.name, column, found.margin, finite(found.low), finite(found.high), found.n, found.verdict
    )


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


HOW = {
    "crossed": "paired by seed and test example",
    "partly": "paired by seed; the text's sampling error of the perplexities that have it added",
    "sets": "paired by seed and data set",
    "binomial": "paired by seed, binomial test-set error added",
    "seeds": "paired by seed; the test set's sampling error has no part in this metric",
    "share": "exact interval of a share of runs",
    "jackknife": "computed again without each seed; the data sets are taken as given",
    "unpaired": "cells without common seeds: their variances added",
}


def explained(verdict: str, found: Interval, usable: list[Component], missing: int, total: int) -> str:
    """One sentence: what decided, on how many seeds, with which kind of interval."""
    if missing and verdict == "inconclusive":
        return f"{missing} of {total} parts not run"
    if found.n < FEWEST:
        return f"fewer than {FEWEST} seeds (n = {found.n})"
    worst = min(usable, key=lambda c: c.margin if c.margin is not None else math.inf)
    if verdict == "supported":
        text = f"the 95 % interval of every part lies above 0; least margin: {worst.name}"
    elif verdict == "contradicted":
        lowest = min(usable, key=lambda c: c.high if c.high is not None else math.inf)
        text = f"below 0 with all {len(usable)} parts allowed for: {lowest.name}"
    else:
        open_parts = sum(c.verdict != "supported" for c in usable)
        text = f"{open_parts} of {len(usable)} parts not above 0 with confidence; least margin: {worst.name}"
    return f"{text}; n = {found.n}, {HOW[found.how]}"


def hardly_trained(usable: list[claim_room.Part], stuck: dict[tuple[str, str], tuple[int, int]]) -> str:
    """As in "at chance: 1 of 3 of nin (cifar10), 3 of 3 of nin (cifar100)"; "" where none is."""
    cells = [cell for part in usable for cell in sorted(cells_of(part.margin))]
    found = {key: stuck[key] for row, column, _ in cells if (key := (row, column)) in stuck}
    told = [f"{hits} of {n} of {row} ({column})" for (row, column), (hits, n) in found.items()]
    if len(told) > FEW:
        hits, n = (sum(counts) for counts in zip(*found.values(), strict=True))
        told = [f"{hits} of {n} runs of {len(found)} cells"]
    return f"at chance: {', '.join(told)}" if told else ""


def hardly_begun(usable: list[claim_room.Part], short: dict[str, float]) -> str:
    """As in "early learning only: 0.8 % of the published steps"; "" where none is cut so short."""
    found = sorted({short[c] for part in usable for c in part.columns if c in short})
    ends = dict.fromkeys(f"{100 * share:.1g}" for share in (*found[:1], *found[-1:]))
    return f"early learning only: {' to '.join(ends)} % of the published steps" if found else ""


def label_of(usable: list[claim_room.Part], components: list[Component], bases: dict[str, Basis]) -> str:
    """What the verdict rests on, where that is not simply the paper's data."""
    columns = dict.fromkeys(column for part in usable for column in part.columns)
    on = [f"{bases[c].data} ({bases[c].standing})" for c in columns if bases[c].standing not in ("same", "")]
    if on:
        on += [bases[c].data for c in columns if bases[c].standing == "same"]
    on = list(dict.fromkeys(on))
    left = dict.fromkeys(c.why for c in components if usable and c.verdict == "not comparable")
    without = [
        f"without {b.column} ({b.data}: {b.standing})"
        for b in bases.values()
        if b.standing in ("mechanics", "unknown") and any(why.startswith(f"{b.column}:") for why in left)
    ]
    if any("absolute" in why for why in left):
        without.append("without its absolute thresholds")
    if usable and (missing := sum(c.verdict == "not run" for c in components)):
        without.append(f"{missing} of {len(components)} parts not run")
    return "; ".join((["on " + ", ".join(on)] if on else []) + without)
