"""What every test shares: one thread, a prepared-data cache of its own, no display."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports torch or numpy. Sums over several threads differ in the last bits; worker processes
# that tests start inherit these too.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["KERAS_BACKEND"] = "torch"  # a peer of some layers

# No deadline: a slow machine is not a bug. Derandomized: the same commit gives the same answer twice.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared data sets go to a folder of this test session, unless BN_DATA_CACHE names one already."""
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("BN_DATA_CACHE"):
            patch.setenv("BN_DATA_CACHE", str(tmp_path_factory.mktemp("prepared")))
        yield Path(os.environ["BN_DATA_CACHE"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same numbers alone, in another order or on another worker."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """An empty run store."""
    runs = tmp_path / "runs"
    runs.mkdir()
    return runs
