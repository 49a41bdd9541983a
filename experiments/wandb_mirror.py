"""The process behind tracking=wandb: reads what a job says on standard input and hands it to Weights &
Biases.

First line: {settings, runs: [{id, config}]}; then {id, epoch, metrics} and {id, status, cell, summary}. W&B
runs are grouped by table and cell, and carry the run's id, so that a resumed run goes on in the same W&B run.
Offline unless somebody is logged in: `wandb login` before, or `wandb sync` on the folder afterwards.
"""

from __future__ import annotations

import json
import netrc
import os
import sys
from pathlib import Path
from typing import Any


def logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        known = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in known)


def main() -> int:
    first = json.loads(sys.stdin.readline())
    settings = first["settings"]
    mode: Any = settings["mode"] if settings["mode"] != "auto" else ("online" if logged_in() else "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb
    except ImportError:
        print("wandb is not installed: pip install wandb (the extra `wandb`)")
        return 1
    open_runs: dict[str, Any] = {}

    def run_of(rid: str) -> Any:
        if rid not in open_runs:
            c = next(r["config"] for r in first["runs"] if r["id"] == rid)
            open_runs[rid] = wandb.init(
                project=settings["project"],
                dir=settings["dir"],
                mode=mode,
                id=rid,
                resume="allow" if mode == "online" else None,
                group=f"{settings['table']}/{settings['profile']}/{c['data']['name']}/{c['norm']['name']}/alpha={c.get('alpha')}",
                name=f"{settings['table']} {c['data']['name']} {c['norm']['name']} seed={c['seed']}",
                tags=[settings["table"], settings["profile"]],
                config=c,
                reinit="create_new",
            )
        return open_runs[rid]

    for line in sys.stdin:
        m = json.loads(line)
        if "metrics" in m:
            run_of(m["id"]).log({"epoch": m["epoch"], **m["metrics"]})
            continue
        run = run_of(m["id"])
        run.summary.update({**m["summary"], "status": m["status"], **m["cell"]})
        columns = ["run_id", "row", "column", "status", *m["summary"]]
        row = [m["id"], m["cell"]["row"], m["cell"]["column"], m["status"], *m["summary"].values()]
        run.log({"final": wandb.Table(columns=columns, data=[row])})
        run.finish()
    for run in open_runs.values():
        run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
