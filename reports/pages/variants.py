"""Other variants beside the primary: what the paper leaves open, resolved in another way."""

from __future__ import annotations

from typing import Any

from reports import analysis


def beside(report: analysis.TableReport) -> list[dict[str, Any]]:
    """A line for the primary of each row that has variants, then one a variant: the main metric by column."""
    main = report.published.metrics[0].id
    extra = report.extra[(report.extra["metric"] == main) & (report.extra["match"] == "variant")]
    own = report.cells[report.cells["metric"] == main]
    lines = []
    for row in report.published.rows:
        mine = extra[extra["row"] == row.id]
        if not len(mine):
            continue
        primary = {cell["column"]: cell for cell in own[own["row"] == row.id].to_dict("records")}
        lines.append({"row": row.en, "label": "primary", "cells": primary})
        for label, group in mine.groupby("label", sort=True):
            cells = {cell["column"]: cell for cell in group.to_dict("records")}
            lines.append({"row": row.en, "label": str(label), "cells": cells})
    return lines
