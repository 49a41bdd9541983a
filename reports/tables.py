"""The comparison table, survey | source | ours | difference, as Markdown, CSV, LaTeX, HTML and for the
terminal.

All but CSV print the same blocks of text, one block a data column. CSV is the long form with every number
in full. A difference in brackets is one to a number that was measured on other data.
"""

from __future__ import annotations

import html as html_text
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import selection
from reports.analysis import CELLS, TRIALS, ClaimResult, TableReport
from reports.published import Metric

WIDTH = 100  # of the terminal form
FEW = 12  # cells of other variants that it shows
NONE = "–"
Cell = dict[str, Any]  # one line of TableReport.cells


@dataclass(frozen=True)
class Block:
    title: str
    head: list[str]
    rows: list[list[str]]
    left: int = 1  # leading columns of text, set flush left like remarks

    def flush(self, i: int) -> bool:
        return i < self.left or self.head[i] in ("remarks", "on")


# --------------------------------------------------------------------------------------------- single values


def number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return NONE
    return "∞" if value == math.inf else f"{value:.{digits}f}"


def mean_sd(cell: Cell, digits: int) -> str:
    """5.10 ± 0.12, without a spread where there is none; "not run", or "failed" where every run did; a dash
    for a metric that the row does not have, and for a row that is only printed. Of a target that runs missed:
    ∞ (2 missed).
    """
    if cell["n"] == 0:
        dash = cell["data"] or cell.get("standing") == "printed"
        return "failed" if cell["failed"] else NONE if dash else "not run"
    text = number(cell["mean"], digits)
    if cell.get("missed"):
        return f"{text} ({cell['missed']} missed)"
    return text if cell["n"] == 1 or math.isnan(cell["sd"]) else f"{text} ± {number(cell['sd'], digits)}"


def difference(cell: Cell, digits: int) -> str:
    if math.isnan(cell["difference"]):
        return NONE
    text = f"{cell['difference']:+.{digits}f}"
    return text if cell["standing"] in ("same", "variant") else f"({text})"


def remark(cell: Cell) -> str:
    """1 diverged, 2 stale, 9 of 12 trials, ...: what a mean does not show."""
    told = [f"{cell[name]} {name}" for name in ("diverged", "failed", "stale") if cell[name]]
    if cell.get("trials") and not math.isnan(cell["trials"]):
        told.append(selection.remark(cell["trials"], cell["trials_planned"], cell["trials_diverged"]))
    return ", ".join(told)


def interval(claim: Any) -> str:
    """0.31 [0.10, 0.52]; the interval only where an end of it is bounded."""
    if claim.margin is None:
        return NONE
    if claim.low is None and claim.high is None:
        return short(claim.margin)
    low = "-∞" if claim.low is None else short(claim.low)
    return f"{short(claim.margin)} [{low}, {'∞' if claim.high is None else short(claim.high)}]"


def short(value: float) -> str:
    """Three digits; what rounding left of a difference is 0."""
    return f"{0.0 if abs(value) < 1e-9 else value:.3g}"


def printed(value: tuple[float | None, str]) -> str:
    margin, verdict = value
    return verdict if margin is None else f"{verdict} ({short(margin)})"


# ----------------------------------------------------------------------------------------------------- blocks


def comparison(report: TableReport) -> list[Block]:
    """One block a data column: the printed metrics with ours and the difference, then the labelled ones."""
    return [comparison_of(report, column) for column in report.published.data_columns]


def comparison_of(report: TableReport, column: str) -> Block:
    pub = report.published
    rows_here = [row for row in pub.rows_of(column) if row in pub.main_rows]
    columns: list[tuple[str, list[str]]] = [(pub.row_header["en"], [row.en for row in rows_here])]
    main, *_ = metrics = pub.metrics_of(column)
    for metric in metrics:
        found = [report.lines[row.id, column, metric.id] for row in rows_here]
        columns += list(metric_columns(metric, found, main=metric is main))
    first = [report.lines[row.id, column, main.id] for row in rows_here]
    remarks = [remark(cell) for cell in first]
    if any(remarks):
        columns.append(("remarks", remarks))
    rows = [list(row) for row in zip(*(values for _, values in columns), strict=True)]
    return Block(heading(report, column), [name for name, _ in columns], rows)


def metric_columns(metric: Metric, cells: list[Cell], main: bool) -> Iterator[tuple[str, list[str]]]:
    ours = [mean_sd(cell, metric.digits) for cell in cells]
    if metric.role != "cell":
        yield metric.short, ours
        return
    prefix = "" if main else f"{metric.short} "
    for whose in ("survey", "source"):
        values = [cell[whose] for cell in cells]
        if not all(math.isnan(value) for value in values):
            whole = all(value == int(value) for value in values if not math.isnan(value))
            digits = 0 if whole else metric.digits
            yield f"{prefix}{whose}", [number(value, digits) for value in values]
    yield f"{prefix}ours", ours
    if not prefix:
        yield "n", [str(cell["n"]) for cell in cells]
        if metric.comparable:
            yield "diff.", [difference(cell, metric.digits) for cell in cells]


def heading(report: TableReport, column: str) -> str:
    """MNIST: ours on mnist5k (stand-in)."""
    group = report.published.group(column)
    ran = report.cells[(report.cells["column"] == column) & (report.cells["data"] != "")]
    if not len(ran):
        return f"{group}: not run"
    first = ran.iloc[0]
    origin = ", from the committed snapshot" if (ran["origin"] == "measured").all() else ""
    return f"{group}: ours on {first['data']} ({first['standing']}){origin}"


def labelled(report: TableReport, match: str) -> list[Block]:
    """Other variants ("variant") or normalisers not in the survey ("norm"): a block a data column that has
    any.
    """
    pub, blocks = report.published, []
    rows = {row.id: row.en for row in pub.rows}
    name = {"variant": "other variants", "norm": "not in the survey"}[match]
    for column in pub.data_columns:
        metrics = pub.metrics_of(column)
        head = [match, pub.row_header["en"], "ours", "n", *(m.short for m in metrics[1:]), "remarks"]
        chosen = report.extra[(report.extra["match"] == match) & (report.extra["column"] == column)]
        lines = []
        chosen = chosen.sort_values("label", kind="stable")
        for (label, row), group in chosen.groupby(["label", "row"], sort=False):
            cells: list[Cell] = group.to_dict("records")  # type: ignore[assignment]
            ours = [mean_sd(cell, metric.digits) for cell, metric in zip(cells, metrics, strict=True)]
            count, told = str(cells[0]["n"]), remark(cells[0])
            lines.append([str(label), rows.get(str(row), NONE), ours[0], count, *ours[1:], told])
        if lines:
            blocks.append(Block(f"{pub.group(column)}: {name}", head, lines, left=2))
    return blocks


def claims(report: TableReport) -> Block:
    head = ["id", "claim", "survey", "source", "ours", "margin [95 %]", "n", "on"]
    return Block("Claims", head, [claim_row(claim) for claim in report.claims], left=5)


def claim_row(claim: ClaimResult) -> list[str]:
    text = f"{claim.sentence}: {claim.inequality}"
    count = str(claim.n) if claim.margin is not None else NONE
    ours = [claim.verdict, interval(claim), count, claim.label or claim.why]
    return [claim.id, text, printed(claim.survey), printed(claim.source), *ours]


def deviations(report: TableReport) -> Block:
    rows = [[str(value) for value in row] for row in report.deviations.to_numpy()]
    return Block("Deviations from the paper profile", ["data", "key", "paper", "ran", "rows"], rows, left=5)


def blocks(report: TableReport) -> list[Block]:
    last = [deviations(report)] if len(report.deviations) else []
    extra = [*labelled(report, "norm"), *labelled(report, "variant")]
    return [*comparison(report), *extra, claims(report), *last]


def title(report: TableReport) -> str:
    return f"{report.title} (profile {report.profile})"


# ---------------------------------------------------------------------------------------------------- formats


def markdown(report: TableReport) -> str:
    parts = [f"## {escape_markdown(title(report))}"]
    for block in blocks(report):
        rule = ["---" if block.flush(i) else "---:" for i in range(len(block.head))]
        lines = [block.head, rule, *block.rows]
        table = "\n".join("| " + " | ".join(map(escape_markdown, line)) + " |" for line in lines)
        parts.append(f"### {escape_markdown(block.title)}\n\n{table}")
    if report.notes:
        parts.append("### Notes\n\n" + "\n".join(f"- {escape_markdown(note)}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Plain text in a table cell: no pipes, no line breaks, no markup of its own."""
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split()) or " "


def csv(report: TableReport) -> str:
    """One line a row, column and metric, every number in full; label and match tell the labelled rows."""
    cells = report.cells.assign(label="", match="cell")
    joined = pd.concat([cells, report.extra]) if len(report.extra) else cells
    named = [*CELLS, *(name for name in TRIALS if name in cells)]
    columns = ["match", "label", *(name for name in named if name != "runs")]
    joined = joined.assign(profile=report.profile, table=report.table)
    chosen = joined[["table", "profile", *columns]]
    text: str = chosen.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text


def latex(report: TableReport) -> str:
    """The comparison blocks and the claims as `tabular`s with booktabs rules."""
    found = [block for block in blocks(report) if not block.title.startswith("Deviations")]
    parts = [f"% {title(report)}; needs \\usepackage{{booktabs}}"]
    for block in found:
        form = "".join("l" if block.flush(i) else "r" for i in range(len(block.head)))
        lines = [" & ".join(map(escape_latex, line)) + r" \\" for line in (block.head, *block.rows)]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        caption = escape_latex(f"{title(report)}. {block.title}")
        parts.append(
            f"\\begin{{table}}\n\\caption{{{caption}}}\n"
            f"\\begin{{tabular}}{{{form}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}"
        )
    return "\n\n".join(parts) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "–": "--", "α": r"$\alpha$",
    "∞": r"$\infty$", "→": r"$\to$", "≥": r"$\geq$", "×": r"$\times$", "²": r"$^2$", "−": "--",
}  # fmt: skip


def escape_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def html(report: TableReport) -> str:
    """The blocks as plain tables, everything escaped; no styles, so that any page can hold them."""
    parts = [f"<h2>{html_text.escape(title(report))}</h2>"]
    for block in blocks(report):
        head = "".join(f'<th scope="col">{html_text.escape(name)}</th>' for name in block.head)
        body = "\n".join(
            "<tr>" + "".join(html_cell(text, block.flush(i)) for i, text in enumerate(row)) + "</tr>"
            for row in block.rows
        )
        caption = f"<caption>{html_text.escape(block.title)}</caption>"
        table = f"<table>\n{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        parts.append(table)
    if report.notes:
        notes = "\n".join(f"<li>{html_text.escape(note)}</li>" for note in report.notes)
        parts.append(f"<ul>\n{notes}\n</ul>")
    return "\n".join(parts) + "\n"


def html_cell(text: str, left: bool) -> str:
    return f"<td>{html_text.escape(text)}</td>" if left else f'<td class="num">{html_text.escape(text)}</td>'


def terminal(report: TableReport) -> str:
    """The comparison in at most 100 columns (columns that do not fit are left to the page), claims in a
    line each.
    """
    parts = [title(report), "=" * min(len(title(report)), WIDTH)]
    variants = report.extra.drop_duplicates(["label", "row", "column"])
    count = int((variants["match"] == "variant").sum())
    few = labelled(report, "variant") if count <= FEW else []
    for block in [*comparison(report), *labelled(report, "norm"), *few]:
        parts += ["", block.title[:WIDTH], *fitted(block)]
    if count > FEW:
        parts += ["", f"{count} cells of other variants are on the page of the table."]
    parts += ["", "Claims (survey / source / ours)"]
    for claim in report.claims:
        verdicts = f"{claim.survey[1]} / {claim.source[1]} / {claim.verdict}"
        parts.append(f"{claim.id:<8}{verdicts}")
        parts += wrapped(claim.sentence + (f" [{claim.label}]" if claim.label else ""), indent=7)
    if report.notes:
        parts += ["", *(line for note in report.notes for line in wrapped(f"- {note}", indent=0))]
    return "\n".join(line.rstrip() for line in parts)


def fitted(block: Block) -> Iterator[str]:
    """The block's lines; of those that do not fit the sources' of other metrics go first, then from
    the right, remarks last.
    """
    rows = [[text.replace(" ± ", "±") for text in row] for row in (block.head, *block.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(block.head))]
    kept = list(range(len(widths)))
    while sum(widths[i] + 2 for i in kept) - 2 > WIDTH and len(kept) > block.left + 1:
        theirs = [i for i in kept if block.head[i].endswith(" source")]
        if theirs:
            kept.remove(theirs[-1])
            continue
        del kept[-2 if block.head[kept[-1]] == "remarks" else -1]
    for row in rows:
        form = [f"{row[i]:{'<' if block.flush(i) else '>'}{widths[i]}}" for i in kept]
        yield "  ".join(form)[:WIDTH]


def wrapped(text: str, indent: int) -> list[str]:
    lines, line = [], " " * indent
    for word in text.split():
        if len(line) + len(word) + 1 > WIDTH and line.strip():
            lines.append(line)
            line = " " * indent
        line = f"{line} {word}" if line.strip() else line + word[: WIDTH - indent]
    return [*lines, line]
