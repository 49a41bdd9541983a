"""Table 7: a convolutional acoustic model with and without batch normalization, ReLU and sigmoid, on half and
on all of the training data (most probably Zhan, Chen & Lu, CCPR 2016).

    error = share of spoken words that are named wrongly, in per cent (not a word error rate of a recogniser)

The survey prints BN at the learning rate 0.08 and the plain network at 0.008 only, so that what BN does and
what the rate does cannot be told apart. Here are all eight cells, {half, all} x {ReLU, sigmoid} x {BN, none},
at both rates. Its data sets wm50 and wm100 are not public (probably 50 and 100 hours of a firm's own
recordings): the stand-ins are sets of spoken words, `data.share` is the share of the training part in use.

From the survey: the two rates, the two activations, BN or none. Ours, since the source's text could not be
read: the network (models/speech.py), its initial weights, momentum 0.9, batches of 50, no L2, the rate halved
after every epoch without a better validation error once `keep_rate` epochs are over, as hybrid systems do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments import images
from experiments.config import BadInput, Data, Norm, Optimizer

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train"]


@dataclass
class Network:
    name: str  # speech
    width: float  # filters and units times this
    activation: str  # relu | sigmoid
    gain: float  # of the initial weights in front of activations


@dataclass
class Run:
    """What determines a result, and nothing else: this is hashed into the run's id. A key added later gets a
    default.
    """

    table: str
    data: Data
    model: Network
    norm: Norm
    optimizer: Optimizer
    keep_rate: int  # epochs; after them, each without a better validation error halves the rate
    batch_size: int
    epochs: int
    evaluations: int  # in each epoch
    seed: int


STACK = ()
SHARE = True  # data.share is an axis of this table
SELECT = "val_error"


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o = run.model, run.optimizer
    must(m.name == "speech", "model", m.name, "this table has one network (speech)")
    must(math.isfinite(m.width) and 0 < m.width <= 8, "model.width", m.width, "a factor above 0, up to 8")
    must(m.activation in ("relu", "sigmoid"), "model.activation", m.activation, "choose relu or sigmoid")
    must(math.isfinite(m.gain) and m.gain > 0, "model.gain", m.gain, "must be above 0")
    must(o.name == "SGD", "optimizer", o.name, "this table has SGD with momentum (sgd)")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(run.keep_rate >= 0, "keep_rate", run.keep_rate, "epochs, 0 or more")
    must(run.evaluations >= 1, "evaluations", run.evaluations, "must be at least 1 an epoch")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    return run


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column): activation, normaliser, rate; wm50 for half of the training part, wm100 for all."""
    norm = {"none": "plain", "batch": "bn"}.get(run.norm.name, run.norm.name)
    return f"{run.model.activation}_{norm}_{run.optimizer.lr:g}", f"wm{100 * run.data.share:g}"


class State(images.State):
    """What training changes; the falling rate."""

    run: Run

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        if hasattr(data.x_train, "batches"):
            raise BadInput(f"{data.name}: this table holds its data in memory; give data.limit_train")
        super().__init__(runs[0], data, device, partial(built, runs[0]))
        self.halvings = 0
        self.best, self.best_of_epoch = math.inf, math.inf  # validation error

    def input(self, data: Any) -> Any:
        from experiments.models.speech import BandNorm

        return BandNorm.of(data.x_train)

    def distort(self, x: Any, generator: Any) -> Any:
        return super().distort(x, generator) if x.dtype.itemsize == 1 else x  # uint8 pictures are scaled

    def rate(self, epoch: float) -> float:
        return float(self.run.optimizer.lr * 0.5**self.halvings)

    def judge(self, val_error: float) -> None:
        """Takes note of an evaluation; at the end of an epoch the rate falls, if nothing in it was better."""
        self.best_of_epoch = min(self.best_of_epoch, val_error)
        if self.batch == 0:
            free = self.epoch > self.run.keep_rate
            self.halvings += free and self.best_of_epoch >= self.best
            self.best, self.best_of_epoch = min(self.best, self.best_of_epoch), math.inf

    def watched(self) -> dict[str, float]:
        return {"chance": 100 - 100 / len(self.data.classes), "rate": self.rate(0)}

    def state_dict(self) -> dict[str, Any]:
        falling = {k: getattr(self, k) for k in ("halvings", "best", "best_of_epoch")}
        return {**super().state_dict(), **falling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.halvings, self.best = state["halvings"], state["best"]
        self.best_of_epoch = state["best_of_epoch"]


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """As images.train, and the rate is halved by what an evaluation says."""
    for step, metrics in images.train(state):
        if metrics:
            state.judge(metrics["val_error"][0])
        yield step, metrics


def built(run: Run, data: Any) -> Any:
    """The network, or BadInput, one line, where it does not fit the data or the normaliser not it."""
    from torch import nn

    import norms
    from experiments.models.speech import SpeechCNN

    def norm(channels: int, dim: int) -> Any:
        return norms.build(run.norm.name, channels, dim=dim, **run.norm.options)

    activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[run.model.activation]
    shape, classes = data.x_train.shape[1:], len(data.classes)
    try:
        return SpeechCNN(shape, classes, norm, run.model.width, activation, run.model.gain)
    except ValueError as e:
        raise BadInput(f"model={run.model.name}: {e}") from e


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves, one value an evaluation; errors in per cent.

    Steps to the plain network's best error need its runs: the reports find them from the curves.
    """
    val, test = curves["val_error"], curves["test_error"]
    chosen = val.index(min(val))
    return {
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "test_error_best": min(test),
        "val_error": val[chosen],
        "chance": curves["chance"][0],
        "steps": curves["step"][-1],
        "step_best_val": curves["step"][chosen],
        "train_loss_last": curves["train_loss"][-1],
    }
