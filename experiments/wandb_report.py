"""The page of a finished sweep as a Weights & Biases artifact: the page itself, its summary table and its
figures. Reads one JSON object on standard input: {settings, page}; a process of its own, like the mirror.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.wandb_mirror import logged_in

PLOT = re.compile(r'<svg [^>]*class="plot".*?</svg>', re.S)


def contents(page: Path, table: str, profile: str) -> tuple[list[Path], list[tuple[str, str]]]:
    """(files beside the page that it offers for this profile, [(name, SVG)] of its figures)."""
    text = page.read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r'href="(downloads/[^"]+)"', text))
    mine = [page.parent / n for n in names if Path(n).name.startswith((f"{table}_{profile}.", "sweep"))]
    start = text.find(f'<section class="pane" id="{profile}"')
    pane = text[max(start, 0) : text.find("</section>", start) if start >= 0 else None]
    figures = [(f"figure_{i:02d}.svg", svg) for i, svg in enumerate(PLOT.findall(pane), 1)]
    return [f for f in mine if f.is_file()], figures


def main() -> int:
    said = json.loads(sys.stdin.read())
    settings, page = said["settings"], Path(said["page"])
    folder = Path(settings["dir"])
    os.environ.setdefault("WANDB_SILENT", "true")
    for key in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # staged files stay with the runs, for wandb sync
        os.environ.setdefault(key, str(folder))
    mode: Any = settings["mode"] if settings["mode"] != "auto" else ("online" if logged_in() else "offline")
    try:
        import wandb
    except ImportError:
        print("wandb is not installed: pip install wandb (the extra `wandb`)")
        return 1
    table, profile = settings["table"], settings["profile"]
    files, figures = contents(page, table, profile)
    run = wandb.init(
        project=settings["project"], dir=settings["dir"], mode=mode, job_type="report",
        name=f"{table} {profile} report", tags=[table, profile, "report"],
    )  # fmt: skip
    artifact = wandb.Artifact(f"{table}-{profile}-report", type="report")
    for file in (page, *files):
        artifact.add_file(str(file), name=file.name)
    with tempfile.TemporaryDirectory() as drawn:
        for name, svg in figures:
            (Path(drawn) / name).write_text(svg, encoding="utf-8")
            artifact.add_file(str(Path(drawn) / name), name=f"figures/{name}")
        for file in (f for f in files if f.suffix == ".csv"):
            with file.open(newline="", encoding="utf-8") as stream:
                table_of: list[Any] = list(csv.reader(stream))
            summary = wandb.Table(columns=table_of[0], data=table_of[1:])
            artifact.add(summary, "summary")
            run.log({"summary": summary})
        run.log_artifact(artifact)
        run.finish()
    print(f"report of {table} {profile}: {len(files) + 1} files, {len(figures)} figures, {mode}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
