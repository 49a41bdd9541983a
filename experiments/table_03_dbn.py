"""Table 3: diminishing batch normalization (Ma & Klabjan, arXiv 1705.08011), ten values of alpha on three
data sets.

    lambda^(m+1) = alpha^(m+1) (mu, sigma) + (1 - alpha^(m+1)) lambda^m          the paper's step 3

lambda = (mu, sigma) are a unit's statistics; with alpha = 1 it is batch normalization. The paper does not say
whether lambda is used in training (readings A and B of `norms.DiminishingBatchNorm1d`) or at test time only
(reading C, what the framework it used does), what lambda^0 is, or whether m counts steps or epochs:
`reading`, `initial` and `unit`.

From the paper: batch 100, AdaGrad from 0.01, softmax loss + L2, the networks in `models/`, no augmentation.
Ours, where it is silent: Glorot initial values, inputs in [0, 1] (NI: standardised), the epoch chosen on a
validation split.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional

# torch takes two seconds to import, and the sweeper, which only checks and names runs, should not pay them:
# what trains imports it.
from experiments.config import BadInput, Data, Model, Norm, Optimizer


@dataclass
class Run:
    """What determines a result, and nothing else: this is hashed into the run's id. A key added later gets a
    default.
    """

    table: str
    data: Data
    model: Model
    norm: Norm
    optimizer: Optimizer
    alpha: Any  # a number in [0, 1] | "inv_m" | "inv_m2"; null for other normalisers, as are the next three
    reading: Optional[str]  # noqa: UP045
    initial: Optional[str]  # noqa: UP045
    unit: Optional[str]  # noqa: UP045
    placement: str
    batch_size: int
    epochs: int
    seed: int


STACK = ("seed", "alpha")  # axes along which runs may train as one population
COLUMN = {
    "mnist": "mnist",
    "mnist5k": "mnist",
    "kddcup99": "ni",
    "kdd_keel": "ni",
    "cifar10": "cifar10",
    "glyphs": "cifar10",
}
ROW = {
    1: "a1",
    0.75: "a0_75",
    0.5: "a0_5",
    0.25: "a0_25",
    0.1: "a0_1",
    0.01: "a0_01",
    0.001: "a0_001",
    0: "a0",
}
ROW_WORDS = {"inv_m": "a1_over_j", "inv_m2": "a1_over_j2"}
ALPHA = "give a number from 0 to 1, or inv_m, inv_m2 (1/m, 1/m^2)"


def check(run: Run) -> Run:
    """The run with its numbers in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    if run.norm.name == "diminishing":
        try:
            alpha = run.alpha if run.alpha in ROW_WORDS else float(run.alpha)
            must(isinstance(alpha, str) or 0 <= alpha <= 1, "alpha", run.alpha, ALPHA)
        except (TypeError, ValueError):
            raise BadInput(f"alpha={run.alpha}: {ALPHA}") from None
        run = replace(run, alpha=alpha)
        must(run.reading in ("A", "B", "C"), "reading", run.reading, "choose A, B or C")
        must(
            run.initial in ("zero_one", "zero_zero", "first_batch"),
            "initial",
            run.initial,
            "choose zero_one, zero_zero or first_batch",
        )
        must(run.unit in ("step", "epoch"), "unit", run.unit, "choose step or epoch")
    else:  # these keys have no meaning for another normaliser, so they must not make different runs of it
        run = replace(run, alpha=None, reading=None, initial=None, unit=None)
    must(
        run.placement in ("before", "after"),
        "placement",
        run.placement,
        "choose before or after (the activation)",
    )
    must(
        math.isfinite(run.optimizer.lr) and run.optimizer.lr > 0,
        "optimizer.lr",
        run.optimizer.lr,
        "the learning rate must be above 0",
    )
    must(
        math.isfinite(run.optimizer.l2) and run.optimizer.l2 >= 0,
        "optimizer.l2",
        run.optimizer.l2,
        "must be 0 or above",
    )
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(
        bool(run.model.hidden) and min(run.model.hidden) >= 1,
        "model.hidden",
        run.model.hidden,
        "must be one or more widths",
    )
    must(run.model.name in ("mlp", "cnn"), "model", run.model.name, "this table has mlp and cnn")
    if run.model.name == "mlp":  # what a network has no use for must not make different runs of it
        run = replace(run, model=replace(run.model, widths=[], dropout=[]))
    else:
        run = replace(run, model=replace(run.model, hidden=run.model.hidden[:1]))
    pairs = len(run.model.widths) // 2
    must(
        run.model.name == "mlp" or (len(run.model.widths) % 2 == 0 and len(run.model.dropout) == pairs + 1),
        "model.widths",
        run.model.widths,
        "convolutions come in pairs, with one dropout rate a pair and one more",
    )
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    return run


def cell(run: Run) -> tuple[str, str]:
    """(row, column) of the survey's table that the run would fill; a normaliser or data set of another kind
    names itself.
    """
    row = (
        run.norm.name
        if run.alpha is None
        else ROW_WORDS.get(run.alpha) or ROW.get(run.alpha) or f"alpha={run.alpha}"
    )
    return row, COLUMN.get(run.data.name, run.data.name)


def can_stack(run: Run) -> bool:
    """Stacking pays for small fully connected networks; convolutions of several members become slow grouped
    ones on a CPU.
    """
    return run.model.name == "mlp" and "." not in run.norm.name  # a user's own layer need not work under vmap


def build_model(run: Run, shape: Sequence[int], classes: int, steps_per_epoch: int) -> Any:
    """The network of one member for inputs of this shape; ValueError, one line, where the normaliser does not
    fit it.
    """
    import norms
    from experiments.models.cnn import CNN
    from experiments.models.mlp import MLP

    options = dict(run.norm.options)
    if run.norm.name == "diminishing":
        period = steps_per_epoch if run.unit == "epoch" else 1
        options = {
            "alpha": run.alpha,
            "reading": run.reading,
            "initial": run.initial,
            "period": period,
            **options,
        }
    norm = partial(norms.build, run.norm.name, **options)
    if run.model.name == "mlp":
        return MLP(math.prod(shape), run.model.hidden, classes, norm, run.placement)
    return CNN(
        shape,
        run.model.widths,
        run.model.hidden[0],
        classes,
        run.model.dropout,
        partial(norm, dim=2),
        norm,
        run.placement,
    )


class State:
    """All that training changes: networks, optimizer, and how far it is. Dropout draws from torch's
    generator, which the caller saves.
    """

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import torch

        from experiments import measure
        from experiments.population import Population

        run = runs[0]
        self.runs, self.data, self.device = runs, measure.to_device(data, device), device
        self.steps_per_epoch = max(
            1, len(data.y_train) // run.batch_size
        )  # the last, smaller batch is left out
        models = []
        for r in runs:
            torch.manual_seed(
                r.seed
            )  # members with one seed share initial values and data order, so that seeds pair
            models.append(
                build_model(r, data.x_train.shape[1:], len(data.classes), self.steps_per_epoch).to(device)
            )
        self.net = Population(models)
        weights = [p for n, p in self.net.named_parameters() if measure.is_weight(n)]
        rest = [p for n, p in self.net.named_parameters() if not measure.is_weight(n)]
        # l2 * sum w^2 in the loss is a gradient of 2 l2 w
        groups = [{"params": weights, "weight_decay": 2 * run.optimizer.l2}, {"params": rest}]
        options = {
            "fused": True if device.type == "cpu" else None,
            **run.optimizer.options,
        }  # one pass over the weights, not five
        self.optimizer = getattr(torch.optim, run.optimizer.name)(groups, lr=run.optimizer.lr, **options)
        self.epoch, self.batch = 0, 0  # the next minibatch to train on
        self.loss_sum = torch.zeros(len(runs), device=device)
        torch.manual_seed(run.seed)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch, self.loss_sum = state["epoch"], state["batch"], state["loss_sum"]


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Train from where `state` is to the end; yields (step, None) now and then and (step, metrics) after
    every epoch.

    K members: index [K, B] -> x [K, B, ...] -> logits [K, B, C]. Each metric is a vector of K values, in per
    cent where it is an error.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from data.batches import take
    from experiments import measure

    run, data, net = state.runs[0], state.data, state.net
    K, B, steps = len(state.runs), run.batch_size, state.steps_per_epoch
    while state.epoch < run.epochs:
        net.train()
        order = torch.stack([measure.shuffle(len(data.y_train), r.seed, state.epoch) for r in state.runs]).to(
            state.device
        )
        while state.batch < steps:
            index = order[:, state.batch * B : (state.batch + 1) * B]  # [K, B]
            logits = net(take(data.x_train, index))  # [K, B, C]
            y = data.y_train[index]
            loss = (
                cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(K, -1).mean(1)
            )  # [K]
            state.optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            state.optimizer.step()
            state.loss_sum += loss.detach()
            state.batch += 1
            if state.batch % 50 == 0 and state.batch < steps:
                yield state.epoch * steps + state.batch, None
        net.eval()
        val_error, _ = measure.errors(net, data.x_val, data.y_val, len(data.classes), data.error)
        test_error, wrong = measure.errors(net, data.x_test, data.y_test, len(data.classes), data.error)
        metrics = {
            "train_loss": (state.loss_sum / steps).tolist(),
            "val_error": val_error,
            "test_error": test_error,
            "weight_norm": measure.weight_norm(net),
            "wrong": wrong,
        }
        state.epoch, state.batch = state.epoch + 1, 0
        state.loss_sum = torch.zeros_like(state.loss_sum)
        yield state.epoch * steps, metrics


SELECT = "val_error"  # the epoch of its minimum is the one whose test error fills the cell


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves (one value an epoch). Every error is in per cent.

    test_error is taken at the epoch of least validation error; test_error_best at the best epoch on the test
    set, as in the source, a biased figure kept apart; test_error_variance is the epoch-to-epoch variance,
    half the mean squared difference of successive test errors over the second half of training.
    """
    test, val = curves["test_error"], curves["val_error"]
    chosen, best = val.index(min(val)), test.index(min(test))
    late = test[len(test) // 2 :]
    jumps = [(b - a) ** 2 / 2 for a, b in zip(late, late[1:], strict=False)]  # noqa: RUF007
    return {
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "test_error_best": test[best],
        "val_error": val[chosen],
        "epoch_best_val": chosen + 1,
        "epoch_best_test": best + 1,
        "test_error_variance": sum(jumps) / len(jumps) if jumps else 0.0,
        "train_loss_last": curves["train_loss"][-1],
        "weight_norm_last": curves["weight_norm"][-1],
    }
