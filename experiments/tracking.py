"""Weights & Biases as a mirror of the records: tracking=none | wandb.

W&B lives in a process of its own that reads one JSON object a line from a pipe. The run writes without ever
waiting; where the pipe is full, the process is gone, or wandb is not installed, tracking ends with one line
and the run goes on. Records never depend on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig


class Nothing:
    def log(self, curves: list[dict[str, list[float]]]) -> None: ...

    def finish(self, records: list[dict[str, Any]]) -> None: ...


class Mirror:
    """One W&B run for each member of the job."""

    def __init__(self, settings: dict[str, Any], runs: list[Any], ids: list[str]) -> None:
        from experiments.config import plain

        self.ids, self.sent, self.backlog = ids, [0] * len(ids), b""
        log = Path(settings["dir"])
        log.mkdir(parents=True, exist_ok=True)
        with open(log / "mirror.log", "ab") as out:
            self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-m", "experiments.wandb_mirror"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
        assert self.process.stdin is not None
        self.pipe = self.process.stdin.fileno()
        os.set_blocking(self.pipe, False)
        self.send(
            {
                "settings": settings,
                "runs": [{"id": i, "config": plain(r)} for i, r in zip(ids, runs, strict=True)],
            }
        )

    def log(self, curves: list[dict[str, list[float]]]) -> None:
        for k, c in enumerate(curves):
            for e in range(self.sent[k], len(c["epoch"])):
                self.send(
                    {
                        "id": self.ids[k],
                        "epoch": c["epoch"][e],
                        # what is measured once, at the end, is in the summary
                        "metrics": {n: v[e] for n, v in c.items() if n != "epoch" and len(v) > e},
                    }
                )
            self.sent[k] = len(c["epoch"])

    def finish(self, records: list[dict[str, Any]]) -> None:
        for r in records:
            self.send({"id": r["run_id"], "status": r["status"], "cell": r["cell"], "summary": r["metrics"]})
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # the mirror ends by itself; nobody waits for it

    def send(self, message: dict[str, Any]) -> None:
        if self.process is None:
            return
        self.backlog += json.dumps(message).encode() + b"\n"
        try:
            while self.backlog:
                self.backlog = self.backlog[os.write(self.pipe, self.backlog) :]
        except BlockingIOError:
            if len(self.backlog) > 50_000_000:
                self.stop("it does not read")
        except OSError:
            self.stop("it has ended, see mirror.log in its folder")

    def stop(self, why: str) -> None:
        print(f"wandb: mirror stopped ({why}); the run goes on, records are not affected", file=sys.stderr)
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()
        self.process, self.backlog = None, b""


def settings(cfg: DictConfig) -> dict[str, Any] | None:
    """What a mirror is told; None without one."""
    if cfg.tracking.name != "wandb":
        return None
    return {
        "project": cfg.tracking.project,
        "mode": cfg.tracking.mode,
        "dir": str(Path(cfg.tracking.dir).resolve()),
        "table": cfg.table,
        "profile": cfg.profile,
    }


def start(cfg: DictConfig, runs: list[Any], ids: list[str]) -> Nothing | Mirror:
    if (told := settings(cfg)) is None:
        return Nothing()
    try:
        return Mirror(told, runs, ids)
    except OSError as e:
        print(f"wandb: cannot start ({e.strerror}); the run goes on without", file=sys.stderr)
        return Nothing()


def report(told: dict[str, Any], page: Path) -> None:
    """Hand the page of a finished sweep to W&B, from a process of its own that nobody waits for."""
    try:
        with open(Path(told["dir"]) / "mirror.log", "ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "experiments.wandb_report"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"settings": told, "page": str(page)}).encode())
        process.stdin.close()
    except OSError as e:
        print(f"wandb: cannot log the report ({e.strerror}); it is at {page}", file=sys.stderr)
