"""The claims ledger: every claim of every table with its three verdicts, on the survey's figures, on its
source's and on ours, and what those rest on. Made from what each table's build leaves in the stamp, so a
table that did not change is not read again.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from reports.verdicts import VERDICTS, ClaimResult

BUDGET = ("paper", "cpu", "quick", "smoke")  # the profile that says most first
DECIDED = ("supported", "contradicted")
OPEN = (*DECIDED, "inconclusive")
COLUMNS = [
    "claim", "table", "repeats", "sentence", "inequality", "survey", "survey_margin", "source",
    "source_margin", "source_says", "profile", "ours", "margin", "low", "high", "n", "effect_size",
    "seeds_needed", "rests_on", "why",
]  # fmt: skip
NONE_WOULD = "more than 10000"


def entry(table: str, profile: str, claim: ClaimResult) -> dict[str, Any]:
    """One line, a claim under a profile; None for what there is not, never NaN or infinity."""
    return {
        "claim": claim.id,
        "table": table,
        "repeats": claim.repeats,
        "sentence": claim.sentence,
        "inequality": claim.inequality,
        "survey": claim.survey[1],
        "survey_margin": finite(claim.survey[0]),
        "source": claim.source[1],
        "source_margin": finite(claim.source[0]),
        "source_says": claim.says,
        "profile": profile,
        "ours": claim.verdict,
        "margin": finite(claim.margin),
        "low": claim.low,
        "high": claim.high,
        "n": claim.n,
        "effect_size": claim.effect,
        "seeds_needed": NONE_WOULD if claim.needed == math.inf else claim.needed and int(claim.needed),
        "rests_on": claim.label,
        "why": claim.why,
    }


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_csv(lines: list[dict[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return sink.getvalue()


def as_json(lines: list[dict[str, Any]]) -> str:
    return json.dumps(lines, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# ------------------------------------------------------------------------------------- one line a claim


def source_of(line: dict[str, Any]) -> str:
    """Holds | fails by its figures, else stated | denied by its words, else n/a."""
    word: str = line["source_says"].partition(":")[0]
    return word if line["source"] == "n/a" and word else line["source"]


def best(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The line of one claim that counts: of the largest profile that has three seeds and every part of it,
    whatever its verdict; where none has, of one that decides, then of one that has something. Smoke runs
    decide nothing and come last.
    """

    def rank(line: dict[str, Any]) -> tuple[int, ...]:
        whole = line["ours"] in OPEN and line["n"] > 2 and "parts not run" not in line["rests_on"]
        how = 0 if whole else 1 if line["ours"] in DECIDED else 2 if line["ours"] in OPEN else 3
        return int(line["profile"] == "smoke"), how, order(line["profile"])

    return min(lines, key=rank)


def order(profile: str) -> int:
    return BUDGET.index(profile) if profile in BUDGET else len(BUDGET)


def by_claim(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each claim its best line, the verdict under every profile, and which profiles decide the
    opposite.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["claim"], []).append(line)
    found = []
    for group in groups.values():
        chosen, ordered = best(group), sorted(group, key=lambda line: order(line["profile"]))
        found.append(
            {
                **chosen,
                "profiles": {line["profile"]: line for line in ordered},
                "otherwise": [x["profile"] for x in ordered if {x["ours"], chosen["ours"]} == set(DECIDED)],
            }
        )
    return found


def counts(claims: list[dict[str, Any]], repeats: bool = False) -> dict[str, int]:
    """Verdict -> how many claims of the fact sheets have it; repeats: and those that repeat one on other
    data.
    """
    found = Counter(claim["ours"] for claim in claims if repeats or not claim["repeats"])
    return {verdict: found[verdict] for verdict in VERDICTS}


# ------------------------------------------------------------------------------------------- surprises


def surprising(line: dict[str, Any]) -> bool:
    """Decided by our runs against what the survey's or its source's own figures, or the source's words, say;
    early learning and runs at chance surprise nobody.
    """
    if "early learning" in line["rests_on"] or "at chance" in line["rests_on"]:
        return False
    said = {line["survey"], source_of(line)}
    if line["ours"] == "contradicted":
        return bool(said & {"holds", "stated"})
    return line["ours"] == "supported" and bool(said & {"fails", "denied"}) and "holds" not in said


def surprises(claims: list[dict[str, Any]], most: int = 8) -> list[dict[str, Any]]:
    """The most surprising claims, no more than two a table: those on the survey's own data first, then by
    how many half widths of its interval the margin is away from 0.
    """

    def rank(line: dict[str, Any]) -> tuple[bool, float]:
        return "stand-in" in line["rests_on"], -distance(line)

    found: list[dict[str, Any]] = []
    for line in sorted(filter(surprising, claims), key=rank):
        if sum(line["table"] == f["table"] for f in found) < 2 and len(found) < most:
            found.append(line)
    return found


def distance(line: dict[str, Any]) -> float:
    """Of an unbounded interval: by its bounded end."""
    margin, low, high = line["margin"], line["low"], line["high"]
    near = low if line["ours"] == "supported" else high
    half = abs(margin - near) if near is not None else 0.0
    return abs(margin) / half if half else math.inf


def overturned(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Claims that hold, or cannot be told, on what the survey prints and fail on its source's figures."""
    return [c for c in claims if c["source"] == "fails" and c["survey"] != "fails" and not c["repeats"]]
