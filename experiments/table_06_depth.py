"""Table 6: how deep self-normalizing and other networks can be, on the twelve toxicity tasks of the Tox21
challenge (Klambauer et al., arXiv 1706.02515).

Every record is a trial, as in Table 5; here the depth is the column and all else is chosen on the validation
part. The score is the area under the ROC curve, the mean over the tasks. Beside it, records say what the
numbers alone do not: mean and variance of the activations and the size of the gradients, layer by layer, at
the start and at the end.

From the paper: methods, grids (profile `paper`), 100 epochs. Ours, where it is silent: binary cross-entropy
over the labels that are known, plain gradient descent on batches of at most 128, standardised inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import tabular
from experiments.tabular import SELECT, STACK, Run, can_stack, pays_on_cpu, train

__all__ = [
    "SELECT",
    "STACK",
    "Run",
    "State",
    "can_stack",
    "cell",
    "check",
    "pays_on_cpu",
    "summarise",
    "train",
]


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""
    networks = ", ".join(tabular.NETWORKS)
    tabular.must(run.model.name in tabular.NETWORKS, "model", run.model.name, f"this table has {networks}")
    return tabular.check(run)


class State(tabular.State):
    """What training changes; of labels that are tasks, of which the score is an AUC."""

    def __init__(self, runs: list[Run], data: Any, device: Any) -> None:
        wanted = "this table has tasks, 0 or 1 each (of keel: +data.options.labels=one_vs_rest)"
        one = data[0] if isinstance(data, Sequence) else data
        tabular.must(one.y_train.dim() == 2, "data", one.name, wanted)
        super().__init__(runs, data, device)


def cell(run: Run) -> tuple[str, str]:
    """(method, depth); of residual networks, the number of blocks."""
    return tabular.row(run), f"d{run.model.layers}"


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics; test_auc and its kin are 100 AUC, val_error is 100 - 100 AUC."""
    found: dict[str, Any] = tabular.summarise(curves)
    for key in ("test_error", "test_error_last", "test_error_best"):
        found[key.replace("error", "auc")] = 100 - found.pop(key)
    return found
