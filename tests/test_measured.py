"""The committed records against the code they are shown with."""

import json
from pathlib import Path

import pytest

from experiments import provenance

MEASURED = Path(__file__).parents[1] / "reports" / "measured"


@pytest.mark.parametrize("folder", sorted(p.name for p in MEASURED.iterdir() if p.is_dir()))
def test_the_snapshot_knows_todays_code(folder):
    """What is stale is said by comparison with grid.json: after a change of the code that makes records,
    `python -m experiments.status` and `python -m reports snapshot table=...` bring it up to date.
    """
    grid = json.loads((MEASURED / folder / "grid.json").read_text())
    module = {"T3": "experiments.table_03_dbn"}[folder]
    assert grid["code"] == provenance.code_hash(module, grid["norm"])
