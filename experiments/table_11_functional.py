"""Table 11: what the survey says of each method in words (faster, cheaper, steadier, in need of large
batches) measured on three small networks, each built with batch normalisation, in whose place the method
goes.

A run is one method in one *study* with one seed:

    training    a network is trained; its speed, steadiness, generalisation, noise and what becomes of it in
                evaluation are taken down. Also with batches of few labels (order=labels) and with statistics
                of few examples (groups=4), the gradient being that of the whole batch all the same
    batch_size  trained with each of several batch sizes, on as many examples
    scale       trained from weights a hundred times too small, ten times too large
    rate        the largest learning rate at which it still learns
    dropout     trained with and without dropout
    cost        a step's time, memory traffic, saved activations and peak of memory beside those of batch
                normalisation
    depth       mean and variance of the units of a deep network at its start, for six kinds of input

The survey's cells are words, and the experiments ours; what fixes them is the fact that all methods share
everything but the method and its learning rate, which a search on a seed of its own chooses for each method
and network: initial values by the seed, order of the data, optimizer. In `rate` the rate is the question, in
`batch_size` it is in proportion to the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Optional

from experiments.config import BadInput, Data, Norm, Optimizer

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train", "trial"]


@dataclass
class Network:
    name: str  # mlp | cnn | rnn
    width: int
    depth: int
    activation: Optional[str] = None  # noqa: UP045  # relu | selu in the place of the method's own


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
    study: str
    values: list[float]  # of what the study varies; [] where it varies nothing
    scale: float  # of the initial weights
    dropout: float
    dropout_kind: str  # own: alpha dropout in a self-normalizing network; plain: none
    order: str  # of the examples: random, or labels: two a batch
    groups: Optional[int]  # noqa: UP045  # examples that share their statistics; null: the whole batch
    start: str  # of weight normalisation: data, from a batch, or standard, which scale and depth are about
    rate_factor: float  # by which the learning rate is higher than the others'
    batch_size: int
    epochs: int
    evaluations: int  # of an epoch, in training
    seed: int


STACK = ()
SELECT = "val_error"
STUDIES = ("training", "batch_size", "scale", "rate", "dropout", "cost", "depth")
VARIED = ("batch_size", "scale", "rate", "dropout")
NETWORKS = ("mlp", "cnn", "rnn")
ONE_IS_NONE = ("batch", "renorm", "diminishing", "lstm_batch", "lstm_recurrent_batch")  # statistics of [N, C]


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o = run.model, run.optimizer
    must(m.name in NETWORKS, "model", m.name, f"this table has {', '.join(NETWORKS)}")
    must(m.width >= 1, "model.width", m.width, "must be at least 1")
    must(m.depth >= 1, "model.depth", m.depth, "must be at least 1")
    must(m.activation in (None, "relu", "selu"), "model.activation", m.activation, "choose relu or selu")
    must(m.name != "rnn" or m.activation is None, "model.activation", m.activation, "an LSTM has its own")
    must(run.study in STUDIES, "study", run.study, f"choose {', '.join(STUDIES)}")
    must(run.study != "depth" or m.name == "mlp", "study", run.study, "wants model=mlp")
    must(bool(run.values) == (run.study in VARIED), "values", run.values,
         "a list of what the study varies, for " + ", ".join(VARIED) + " alone")  # fmt: skip
    sizes = [run.batch_size, *(run.values if run.study == "batch_size" else [])]
    must(all(v >= 1 and float(v).is_integer() for v in sizes), "batch_size", sizes, "whole numbers from 1")
    must(all(math.isfinite(v) and v > 0 for v in run.values) or run.study == "dropout", "values", run.values,
         "numbers above 0")  # fmt: skip
    rates = [run.dropout, *(run.values if run.study == "dropout" else [])]
    must(all(0 <= v < 1 for v in rates), "dropout", rates, "rates from 0 to below 1")
    must(run.dropout_kind in ("own", "plain"), "dropout_kind", run.dropout_kind, "choose own or plain")
    must(run.order in ("random", "labels"), "order", run.order, "choose random or labels")
    must(run.order == "random" or min(sizes) % 2 == 0, "batch_size", sizes, "order=labels wants even batches")
    must(run.groups is None or 1 <= run.groups <= min(sizes), "groups", run.groups,
         f"examples, from 1 to the batch's {min(sizes):g}; or null")  # fmt: skip
    alone = 1 in [size % (run.groups or size) or (run.groups or size) for size in sizes]
    must(not (alone and m.name != "cnn" and run.norm.name in ONE_IS_NONE), "batch_size", sizes,
         f"norm={run.norm.name} in an {m.name} has no statistics of one example")  # fmt: skip
    must(run.start in ("data", "standard"), "start", run.start, "choose data or standard")
    must(math.isfinite(run.scale) and run.scale > 0, "scale", run.scale, "must be above 0")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(math.isfinite(run.rate_factor) and run.rate_factor > 0, "rate_factor", run.rate_factor,
         "must be above 0")  # fmt: skip
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(run.evaluations >= 1, "evaluations", run.evaluations, "of an epoch, at least 1")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    # What a method has no use for must not make different runs of it.
    if run.norm.name != "weight_norm" or m.name == "rnn" or run.study in ("scale", "depth"):
        run = replace(run, start="standard")
    if run.norm.name != "snn":
        run = replace(run, dropout_kind="plain")
    return replace(run, values=[float(v) for v in run.values])


ROWS = {
    "batch": "bn", "lstm_batch": "bn", "lstm_recurrent_batch": "bn_recurrent", "renorm": "br",
    "diminishing": "dbn", "layer": "ln", "lstm_layer": "ln", "weight_norm": "wn", "group": "gn",
}  # fmt: skip


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column): the method, and what is unusual about it; the study and its network."""
    row = ROWS.get(run.norm.name, run.norm.name)
    if run.model.activation:
        row += f"_{run.model.activation}"
    if run.norm.name == "snn" and run.dropout_kind == "plain" and (run.dropout or run.study == "dropout"):
        row += "_plain_dropout"
    if run.norm.name == "snn" and run.study == "depth" and run.dropout and run.dropout_kind == "own":
        row += "_alpha_dropout"
    if run.rate_factor != 1:
        row += f"_x{run.rate_factor:g}"
    column = run.model.name if run.study == "training" else f"{run.study}_{run.model.name}"
    if run.order != "random":
        column += f"_{run.order}"
    return row, column + (f"_groups_{run.groups}" if run.groups else "")


INPUTS = [(mean, variance) for mean in (-1.0, 1.0) for variance in (0.5, 1.0, 2.0)]  # of `depth`
COUNTED = ("traffic_ratio", "operations_ratio", "saved_ratio", "peak_ratio")
SCHEDULE = ("warmup_steps", "r_steps", "d_steps")  # of batch renormalisation: a matter of examples seen
CHANCE = 0.9  # of a guess's error: what is above has not learned


class State:
    """All that training changes: the network under the condition that is at hand, and how many are done."""

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import torch

        from experiments import measure
        from experiments.conditions import Training, built, steps_of

        (self.run,), self.device = runs, device
        run, self.data = self.run, measure.to_device(data, device)
        self.place, self.extras = 0, dict[str, list[Any]]()
        self.training: Any = None  # of the condition at hand
        self.plain: Any = None  # the network where nothing is trained
        if run.study in ("training", *VARIED):
            self.training = Training(self.condition(0), self.data, device)
        else:
            torch.manual_seed(run.seed)
            self.plain = built(run, data.x_train.shape[1:], len(data.classes)).to(device)
        conditions = [self.condition(k) for k in range(max(1, len(run.values)))]
        self.steps = [steps_of(c, self.data.y_train) for c in conditions]  # of an epoch, by value
        least, size = min(zip(self.steps, (c.batch_size for c in conditions), strict=True))
        needed = {"training": run.evaluations, "depth": 0}.get(run.study, 1)
        if least < needed:
            raise BadInput(
                f"batch_size={size}: {data.name} has {len(data.y_train):,} training examples, so an epoch is"
                f" {least} steps; at least {needed} are needed (evaluations)"
            )
        self.steps_per_epoch = sum(self.steps)
        self.rounds = {
            "training": run.epochs * run.evaluations,
            "cost": run.epochs,
            "depth": len(INPUTS),
        }.get(run.study, len(run.values))

    def condition(self, k: int) -> Run:
        """The run as it is trained at the study's k-th value."""
        run, o = self.run, self.run.optimizer
        o = replace(o, lr=o.lr * run.rate_factor)
        if not run.values:
            return replace(run, optimizer=o)
        value = run.values[k]
        if run.study == "batch_size":  # as many examples, each with the same weight in the sum of all steps
            share = value / run.batch_size
            options = {k: round(v / share) if k in SCHEDULE else v for k, v in run.norm.options.items()}
            return replace(run, batch_size=int(value), optimizer=replace(o, lr=o.lr * share),
                           norm=replace(run.norm, options=options))  # fmt: skip
        if run.study == "rate":
            return replace(run, optimizer=replace(o, lr=value))
        changed: Any = {run.study: value}
        return replace(run, **changed, optimizer=o)

    @property
    def net(self) -> Any:
        from experiments.population import Population

        return Population([self.training.net if self.training else self.plain])

    @property
    def epoch(self) -> int:
        if self.run.study == "training":
            return self.training.epoch
        return self.run.epochs if self.place == self.rounds else 0

    def state_dict(self) -> dict[str, Any]:
        training = None if self.training is None else self.training.state_dict()
        return {"place": self.place, "training": training, "extras": self.extras}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from experiments.conditions import Training

        self.place, self.extras = state["place"], state["extras"]
        if self.training is not None:
            here = min(self.place, max(1, len(self.run.values)) - 1)
            self.training = Training(self.condition(here), self.data, self.device)
            self.training.load_state_dict(state["training"])


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Do what the run's study asks from where `state` is to the end; yields (step, None) now and then and
    (step, metrics) after every evaluation. A metric is a list of one value, an error in per cent.
    """
    study = {"training": trained, "cost": costs, "depth": depths}.get(state.run.study, varied)
    return study(state)


def trial(state: State) -> None:
    """A forward and backward pass of two examples: what a layer that does not fit fails at."""
    import torch

    if state.training is not None:
        state.training.loss(torch.arange(2, device=state.device)).backward()


def trained(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    run, t = state.run, state.training
    for due in t.steps(run.evaluations):
        if due:
            loss, (val, _), (test, wrong) = t.mean_loss(), t.error("val"), t.error("test")
            if t.epoch == run.epochs:
                state.extras = {name: [[value]] for name, value in at_the_end(t, test).items()}
            yield t.step, {
                "step": [t.step], "train_loss": [loss], "val_error": [val], "test_error": [test],
                "wrong": wrong[None],
            }  # fmt: skip
        elif t.step % 20 == 0:
            yield t.step, None


def at_the_end(t: Any, test_error: float) -> dict[str, float]:
    """What is measured of a network once it is trained."""
    found = {
        "disagreement": t.disagreement(),
        "gradient_noise": t.noise(),
        "gap": test_error - t.error("train")[0],
    }
    return found | (t.distances() if t.run.model.name == "mlp" else {})


def varied(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    from experiments.conditions import Training

    run = state.run
    guess = 100 * (1 - 1 / len(state.data.classes))
    before = sum(state.steps[: state.place]) * run.epochs
    while state.place < len(run.values):
        t = state.training
        for _ in t.steps(1):
            if t.step % 50 == 0:
                yield before + t.step, None
        before += t.step
        loss, (val, _), (test, _) = t.mean_loss(), t.error("val"), t.error("test")
        learned = math.isfinite(loss) and val < CHANCE * guess
        metrics = {
            "value": [run.values[state.place]], "val_error": [val], "test_error": [test],
            "learned": [float(learned)],
            "train_loss": [min(loss, 1e6) if loss == loss else 1e6],  # that it blew up is a result here
        }  # fmt: skip
        state.place += 1
        if state.place < len(run.values):
            state.training = Training(state.condition(state.place), state.data, state.device)
        yield before, metrics


def costs(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The method's step in turns with that of batch normalisation; of the first turn the operations. Batch
    renormalisation has its limits open, as for the most of a training.
    """
    from experiments import costs as cost
    from experiments.conditions import Training

    run, opened = state.run, state.condition(0)
    if run.norm.name == "renorm":
        opened = replace(opened, norm=Norm("renorm", {**run.norm.options, **dict.fromkeys(SCHEDULE, 0)}))
    base = replace(opened, norm=Norm("lstm_batch" if run.model.name == "rnn" else "batch", {}))
    pair = [Training(r, state.data, state.device) for r in (opened, base)]
    steps = [partial(t.advance, t.order()[0]) for t in pair]
    for step in steps:
        cost.turn(step, state.device)  # warm
    counted = [(*cost.traffic(step), cost.saved(step), cost.peak(step)) for step in steps]
    ratios = [ours / theirs for ours, theirs in zip(*counted, strict=True)]
    state.extras = {name: [[value]] for name, value in zip(COUNTED, ratios, strict=True)}
    while state.place < state.rounds:
        ours, theirs = (cost.turn(step, state.device) for step in steps)
        state.place += 1
        yield state.place, {"time_ratio": [ours / theirs], "train_loss": [0.0], "val_error": [0.0]}


def depths(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Mean and variance behind every layer at the start, in the mode of training."""
    import torch

    from experiments.conditions import entering

    run, shape = state.run, state.data.x_train.shape[1:]
    while state.place < len(INPUTS):
        mean, variance = INPUTS[state.place]
        generator = torch.Generator().manual_seed(run.seed * 1_000_003 + state.place)
        x = mean + variance**0.5 * torch.randn(run.batch_size, *shape, generator=generator)
        torch.manual_seed(run.seed)
        _, out = entering(state.plain.train(), x.to(state.device))
        means, variances = [v.mean().item() for v in out], [v.var().item() for v in out]
        state.extras[f"means_{mean:+g}_{variance:g}"] = [means]
        state.extras[f"variances_{mean:+g}_{variance:g}"] = [variances]
        state.place += 1
        yield state.place, {
            "mean_out": [means[-1]], "variance_out": [variances[-1]], "train_loss": [0.0], "val_error": [0.0],
        }  # fmt: skip


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves. Errors are in per cent."""
    if "value" in curves:
        return of_values(curves)
    if "time_ratio" in curves:
        times = sorted(curves["time_ratio"])
        return {"time_ratio": times[len(times) // 2], **{name: curves[name][0] for name in COUNTED}}
    if "mean_out" in curves:
        variances = curves["variance_out"]
        return {
            "mean_off": max(map(abs, curves["mean_out"])),
            "variance_low": min(variances),
            "variance_high": max(variances),
            "drift": max(abs(math.log(v)) if v > 0 else math.inf for v in variances),
        }
    return of_training(curves)


def of_values(curves: dict[str, list[float]]) -> dict[str, float]:
    """The error at each value, their standard deviation, and the largest value at which it learned."""
    values, errors = curves["value"], curves["test_error"]
    mean = sum(errors) / len(errors)
    spread = math.sqrt(sum((e - mean) ** 2 for e in errors) / max(1, len(errors) - 1))
    able = [v for v, learned in zip(values, curves["learned"], strict=True) if learned]
    return {
        **{f"error_at_{v:g}": e for v, e in zip(values, errors, strict=True)},
        "spread": spread,
        "log2_largest": math.log2(max(able))
        if able and max(able) > 0
        else math.log2(min((v for v in values if v), default=1.0)) - 1,
    }


def of_training(curves: dict[str, list[float]]) -> dict[str, float]:
    """test_error is taken at the evaluation of least validation error. `epochs_to_90`: until the validation
    accuracy is nine tenths of what it is in the end; `wobble`: standard deviation of its changes from epoch
    to epoch over the first ten.
    """
    val, test, epochs = curves["val_error"], curves["test_error"], curves["epoch"]
    chosen = val.index(min(val))
    wanted = 0.9 * (100 - val[-1])
    ends = [v for v, e in zip(val, epochs, strict=True) if float(e).is_integer()][:10]
    changes = [b - a for a, b in pairwise(ends)]
    mean = sum(changes) / len(changes) if changes else 0.0
    wobble = math.sqrt(sum((c - mean) ** 2 for c in changes) / max(1, len(changes) - 1))
    further = ("disagreement", "gradient_noise", "gap", "ks_input", "ks_output", "ks_rectified")
    return {
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "val_error": val[chosen],
        "epoch_best_val": epochs[chosen],
        "epochs_to_90": next(e for v, e in zip(val, epochs, strict=True) if 100 - v >= wanted),
        "wobble": wobble,
        "train_loss_last": curves["train_loss"][-1],
        **{name: curves[name][0] for name in further if name in curves},
    }
