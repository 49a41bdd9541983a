"""Support vector machine and random forest of Table 5, by scikit-learn: fitted once, in the form of a
training of one epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments import tabular
from experiments.tabular import Run


class Fitted:
    """What the caller of a training wants to know of a network; here of estimators, one a member."""

    def __init__(self, size: int) -> None:
        self.size = size

    def parameter_count(self) -> int | None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Any) -> Any:
        return x  # nothing that could be unfit


class State:
    """Nothing is kept of a fit that was interrupted: it starts again."""

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        self.runs, self.data = runs, list(data) if isinstance(data, Sequence) else [data] * len(runs)
        for d in self.data:  # of each member
            tabular.must(len(d.y_val) > 0, "data", d.name, "no validation rows: nothing to choose by")
        self.steps_per_epoch, self.epoch = 1, 0
        self.found: list[dict[str, float]] = []  # errors of each member
        self.net = Fitted(len(runs))

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


def estimator(run: Run) -> Any:
    """An SVM with Gaussian kernel exp(-gamma |x - y|^2) (LIBSVM, one against one), or a random forest of
    `trees` whose splits may look at a share of `max_features` of the inputs.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC

    m = run.model
    if m.name == "svm":
        return SVC(C=m.C, gamma=m.gamma, cache_size=500, random_state=run.seed)
    return RandomForestClassifier(m.trees, max_features=m.max_features, random_state=run.seed, n_jobs=1)


PARTS = ("train", "val", "test")


def fit(run: Run, data: Any) -> dict[str, float]:
    """Errors of each part, in per cent."""
    rows = {part: (getattr(data, f"x_{part}").numpy(), getattr(data, f"y_{part}").numpy()) for part in PARTS}
    x, y = rows["train"]
    model = None
    if len(set(y.tolist())) > 1:  # neither learns from one class: then that class is the prediction
        model = estimator(run).fit(x, y)
    return {
        part: 100 * float(((y[:1] if model is None else model.predict(x)) != labels).mean())
        for part, (x, labels) in rows.items()
    }


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Fits every member; yields errors in per cent. train_loss is the training error, in per cent."""
    known: dict[tuple[Any, ...], dict[str, float]] = {}  # an SVM does not depend on the seed: fitted once
    for run, data in zip(state.runs, state.data, strict=True):
        m = run.model
        key = (id(data), m.C, m.gamma) if m.name == "svm" else (id(data), m.max_features, run.seed)
        if key not in known:
            known[key] = fit(run, data)
            if len(known) > 1:
                yield 0, None  # time to look whether to stop
        state.found.append(known[key])
    found = {part: [f[part] for f in state.found] for part in PARTS}
    state.epoch = 1
    yield (
        1,
        {
            "train_loss": found["train"],
            "val_error": found["val"],
            "val_smoothed": found["val"],
            "test_error": found["test"],
        },
    )
