"""The committed records against the code they are shown with."""

import json
import re
from pathlib import Path

import pytest

from experiments import provenance

MEASURED = Path(__file__).parents[1] / "reports" / "measured"
CONF = Path(__file__).parents[1] / "conf" / "table"


@pytest.mark.parametrize("folder", sorted(p.name for p in MEASURED.iterdir() if p.is_dir()))
def test_the_snapshot_knows_todays_code(folder):
    """What is stale is said by comparison with grid.json: after a change of the code that makes records,
    `python -m experiments.status` and `python -m reports snapshot table=...` bring it up to date.
    """
    grid = json.loads((MEASURED / folder / "grid.json").read_text())
    module = re.search(r"^module: (\S+)", (CONF / f"{folder}.yaml").read_text(), re.M).group(1)
    assert grid["code"] == provenance.code_hash(module, grid["norm"])
