"""Table 1: Inception with and without batch normalization, in steps to a target (Ioffe & Szegedy, arXiv
1502.03167, section 4.2).

    steps to target = the first step at which the validation accuracy is that of the best of the plain network

The rows differ in the normaliser and in the recipe of section 4.2.1, which has one switch each: a higher
learning rate (x5, x30), no dropout, L2 by 5, a decay of the learning rate 6 times as fast, no local response
normalisation, batches of other pictures in every epoch, fewer photometric distortions. "BN alone" is the row
bn_baseline; the rows with one switch changed say what else makes it fast.

From the paper: the network (profile `paper`), the recipe, batches of 32, SGD with momentum, exponential
decay, dropout 0.4. Ours, where it is silent: momentum 0.9, He's initial values, the size of L2, the pace of
the decay (to 2 % over `horizon` epochs), crops and flips. The paper trained with several asynchronous
workers, whose learning rates do not carry over.

The model `sigmoids` is the experiment of section 4.1: on MNIST, without a recipe, 50,000 steps of batches of
60, and the inputs of the last hidden layer's sigmoids over time. From the paper: all that; ours: learning
rate, the spread of the initial weights, a tenth of the training pictures held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

from experiments import images
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.images import train

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train"]


@dataclass
class Network:
    name: str  # inception | sigmoids (section 4.1: 3 x 100)
    size: str  # full (224x224) | small (32x32, 64x64)
    width: float  # all channels times this
    activation: str  # relu | sigmoid


@dataclass
class Recipe:
    """The accelerations of section 4.2.1, each by itself."""

    rate: float  # the learning rate times this: 1 | 5 | 30
    dropout: float  # before the classifier: 0.4 | 0
    l2: float  # L2 divided by this: 1 | 5
    decay: float  # the learning rate falls so many times as fast: 1 | 6
    lrn: bool  # local response normalisation
    reshuffle: bool  # False: the same pictures share a batch in every epoch
    distortions: str  # full: crops, flips and photometric ones | fewer: crops and flips | none


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
    recipe: Recipe
    flip: bool  # pictures are mirrored at random
    horizon: float  # epochs in which the learning rate falls to FINAL with decay 1
    batch_size: int
    epochs: int
    evaluations: int  # in each epoch
    seed: int


STACK = ()
SELECT = "val_error"
FINAL = 0.02  # GoogLeNet's -4 % every 8 epochs gives this over the paper's 774 epochs of its plain network
BASELINE = Recipe(1.0, 0.4, 1.0, 1.0, True, False, "full")
ACCELERATED = Recipe(1.0, 0.0, 5.0, 6.0, False, True, "fewer")
SWITCHES = tuple(f.name for f in fields(Recipe))
COLUMN = {"imagenette64": "imagenette"}  # all other pictures stand for ImageNet


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o, r = run.model, run.optimizer, run.recipe
    must(m.name in ("inception", "sigmoids"), "model", m.name, "this table has inception and sigmoids")
    must(m.size in ("full", "small"), "model.size", m.size, "choose full or small")
    must(math.isfinite(m.width) and 0 < m.width <= 8, "model.width", m.width, "a factor above 0, up to 8")
    must(m.activation in ("relu", "sigmoid"), "model.activation", m.activation, "choose relu or sigmoid")
    must(o.name == "SGD", "optimizer", o.name, "this table has SGD with momentum (sgd)")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(math.isfinite(r.rate) and r.rate > 0, "recipe.rate", r.rate, "give a factor above 0")
    must(0 <= r.dropout < 1, "recipe.dropout", r.dropout, "a rate from 0 to below 1")
    must(math.isfinite(r.l2) and r.l2 > 0, "recipe.l2", r.l2, "L2 is divided by it: give a number above 0")
    must(math.isfinite(r.decay) and r.decay >= 0, "recipe.decay", r.decay, "must be 0 or above")
    known = ("full", "fewer", "none")
    must(r.distortions in known, "recipe.distortions", r.distortions, f"choose {', '.join(known)}")
    must(math.isfinite(run.horizon) and run.horizon > 0, "horizon", run.horizon, "give epochs above 0")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(run.evaluations >= 1, "evaluations", run.evaluations, "must be at least 1 an epoch")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    return run


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column). A row is a network and its recipe: one of the paper's two, perhaps with another learning
    rate; or one of those with one switch changed, a row of the ablation; others name what they change.
    """
    norm, r = run.norm.name, run.recipe
    if run.model.name == "sigmoids":
        return {"none": "sigmoids", "batch": "sigmoids_bn"}.get(norm, f"sigmoids_{norm}"), "mnist"
    network = {"none": "inception", "batch": "bn"}.get(norm, norm)
    off, on = changes(r, BASELINE), changes(r, replace(ACCELERATED, rate=r.rate))
    if not off:
        row = "inception" if norm == "none" else f"{network}_baseline"
    elif off == {"rate"} and norm == "none":
        row = f"inception_x{r.rate:g}"
    elif len(off) == 1:
        switch = min(off)
        row = f"{network}_with_{switch}" + (f"_x{r.rate:g}" if switch == "rate" else "")
    elif not on:
        row = f"inception_recipe_x{r.rate:g}" if norm == "none" else f"{network}_x{r.rate:g}"
    elif len(on) == 1:
        row = f"{network}_x{r.rate:g}_without_{min(on)}"
    else:
        row = f"{network}, " + ", ".join(f"{k}={getattr(r, k)}" for k in SWITCHES if k in off)
    sigmoid = "_sigmoid" if run.model.activation == "sigmoid" else ""
    return row + sigmoid, COLUMN.get(run.data.name, "imagenet")


def changes(recipe: Recipe, usual: Recipe) -> set[str]:
    return {k for k in SWITCHES if getattr(recipe, k) != getattr(usual, k)}


class State(images.State):
    """What training changes; the recipe's side of it."""

    run: Run

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        super().__init__(runs[0], data, device, partial(build, runs[0]))
        self.medians: list[Any] = []  # of the last sigmoids' inputs, [units] an evaluation

    def input(self, data: Any) -> Any:
        from experiments.models.sigmoid import Binarise

        return Binarise() if self.run.model.name == "sigmoids" else super().input(data)

    def l2(self) -> float:
        return self.run.optimizer.l2 / self.run.recipe.l2

    def rate(self, epoch: float) -> float:
        """The learning rate: lr x rate x FINAL^(decay epoch / horizon)."""
        run = self.run
        return run.optimizer.lr * run.recipe.rate * FINAL ** (run.recipe.decay * epoch / run.horizon)

    def order(self) -> Any:
        """Batches of other pictures in every epoch, or the same batches in another order."""
        from experiments import measure

        if self.run.recipe.reshuffle:
            return super().order()
        steps, batch = self.steps_per_epoch, self.run.batch_size
        fixed = measure.shuffle(len(self.data.y_train), self.run.seed, 0)[: steps * batch].view(steps, batch)
        return fixed[measure.shuffle(steps, self.run.seed, self.epoch)]

    def distort(self, x: Any, generator: Any) -> Any:
        from data import augment
        from experiments.distributed import rank, size

        kind, share = self.run.recipe.distortions, (rank(), size())
        if kind == "none":
            return super().distort(x, generator)
        pad, photometric = x.shape[-1] // 8, kind == "full"
        return augment.pictures(x, generator, self.run.flip, pad, photometric, share)

    def watched(self) -> dict[str, float]:
        """The accuracy of chance. In section 4.1, of the first sigmoid of the last hidden layer the 15th,
        50th and 85th percentile of its input over the test pictures; and how far the medians of all wander,
        the mean over units of the standard deviation over the evaluations so far.
        """
        import torch

        chance = {"chance": 100 / len(self.data.classes)}
        if self.run.model.name != "sigmoids":
            return chance
        first, net = cast(Any, self.net.single.children())
        inputs = net.last_inputs(first(self.data.x_test.float() / 255))
        self.medians.append(inputs.median(0).values.cpu())
        shares = torch.tensor([0.15, 0.5, 0.85], device=inputs.device)
        low, middle, high = inputs[:, 0].quantile(shares).tolist()
        wander = torch.stack(self.medians).std(0, correction=0).mean().item()
        return {**chance, "input_p15": low, "input_p50": middle, "input_p85": high, "median_wander": wander}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "medians": self.medians}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.medians = list(state["medians"])


def build(run: Run, data: Any) -> Any:
    """The network; ValueError, one line, where the normaliser does not fit it."""
    from torch import nn

    import norms
    from experiments.models.inception import Inception

    norm = partial(norms.build, run.norm.name, dim=2, **run.norm.options)
    activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[run.model.activation]
    if run.model.name == "sigmoids":
        from experiments.models.sigmoid import SigmoidNet

        norm = partial(norms.build, run.norm.name, dim=1, **run.norm.options)
        units = max(1, round(100 * run.model.width))
        return SigmoidNet(data.x_train[0].numel(), len(data.classes), norm, units, activation)
    return Inception(
        data.x_train.shape[1:], len(data.classes), norm, run.model.size, run.model.width, activation,
        run.recipe.lrn, run.recipe.dropout,
    )  # fmt: skip


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves, one value an evaluation; accuracies in per cent.

    test_accuracy is taken at the evaluation of the best validation accuracy, test_accuracy_mean over all
    evaluations. Steps to the target need the
    plain network's runs: the reports find them from the curve of validation errors.
    """
    val, test, steps = curves["val_error"], curves["test_error"], curves["step"]
    chosen, best = val.index(min(val)), test.index(min(test))
    return {
        "test_accuracy": 100 - test[chosen],
        "test_accuracy_last": 100 - test[-1],
        "test_accuracy_best": 100 - test[best],
        "val_accuracy": 100 - val[chosen],
        "test_accuracy_mean": 100 - sum(test) / len(test),
        "chance": curves["chance"][0],
        "step_best_val": steps[chosen],
        "steps": steps[-1],
        "train_loss_last": curves["train_loss"][-1],
        **{name: curves[name][-1] for name in ("median_wander",) if name in curves},
    }
