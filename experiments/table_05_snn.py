"""Table 5: self-normalizing networks against other networks, SVM and random forest on many small data sets
(Klambauer et al., arXiv 1706.02515).

Every record is a trial of the grid search: one data set, fold, method, setting of its hyper-parameters and
seed. It has the validation error by which the reports choose the setting, and the test error that then
counts; nothing is trained again. What the networks are and how they train is `experiments.tabular`; SVM and
forest are `experiments.classical`.

From the paper: methods, grids (profile `paper`), 15 % of the training part for validation, 100 epochs. Ours,
where it is silent: plain gradient descent on batches of at most 128, the norm's place (after the activation
as in the authors' public script for another figure; `placement=before` is a variant), highway networks of a
fixed width, residual blocks of two layers with batch normalisation as in their own paper (without it deep
ones diverge), the grids of SVM and forest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments import tabular
from experiments.tabular import SELECT, STACK, Run, can_stack, pays_on_cpu, summarise

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
    return tabular.check(run)


def cell(run: Run) -> tuple[str, str]:
    """(method, data set)."""
    return tabular.row(run), str(run.data.options.get("set", run.data.name))


def State(runs: list[Run], data: Any, device: Any) -> Any:
    """What training changes, of networks or of estimators."""
    from experiments import classical

    one = data[0] if isinstance(data, Sequence) else data
    tabular.must(one.y_train.dim() == 1, "data", one.name, "this table has one class for each row")
    made = classical.State if runs[0].model.name in tabular.CLASSICAL else tabular.State
    return made(runs, data, device)


def train(state: Any) -> Any:
    """Yields (step, metrics) after every epoch: see `tabular.train`."""
    from experiments import classical

    return classical.train(state) if isinstance(state, classical.State) else tabular.train(state)
