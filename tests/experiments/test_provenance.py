"""What a record says of its origin, and when it counts as stale."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASK = "from experiments import provenance as p; print(p.code_hash('experiments.table_03_dbn', 'diminishing'))"


def code_hash(tree: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", ASK], cwd=tree, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_stale_means_the_code_that_makes_the_numbers_changed(tmp_path):
    tree = tmp_path / "tree"
    for room in ("norms", "data", "experiments"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_hash(tree)
    assert before == code_hash(ROOT)

    def edit(name: str, old: str, new: str) -> str:
        path = tree / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        now = code_hash(tree)
        path.write_text(text)
        return now

    # layout, comments, docstrings, the runner and other methods do not count
    assert edit("experiments/table_03_dbn.py", '"""Table 3:', '"""TABLE 3:') == before
    assert edit("norms/diminishing.py", "import math\n", "import math  # a remark\n\n") == before
    assert edit("experiments/job.py", "import time\n", "import time\nX = 1\n") == before
    assert edit("norms/rms.py", "import torch\n", "import torch\nX = 1\n") == before
    # the layer, the network, the measures and the table's own loop do
    for name, old, new in [
        ("norms/diminishing.py", "import math\n", "import math\nX = 1\n"),
        ("experiments/models/mlp.py", "F.relu(norm(linear(x)))", "F.gelu(norm(linear(x)))"),
        ("experiments/measure.py", "seed * 1_000_003", "seed * 1_000_033"),
        ("experiments/table_03_dbn.py", "2 * run.optimizer.l2", "run.optimizer.l2"),
        ("experiments/population.py", 'randomness="different"', 'randomness="same"'),
        ("data/batches.py", "div_(255)", "div_(256)"),
    ]:
        assert edit(name, old, new) != before, name
