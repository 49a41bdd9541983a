"""What is a table's own on its page, one file a table: which metrics lie open, figures, a section, files.

Each module has SHOWN, RUN_METRIC, NOTE, README, ALT and the functions draw, section (the values that
templates/parts/table_NN.html needs), pictures, files and commands.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def of(table: str) -> Any:
    """The module of a table ("T3")."""
    return import_module(f"reports.pages.table_{int(table[1:]):02d}")
