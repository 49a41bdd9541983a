"""Table 9: maxout network in maxout network (MIM) with BN, beside maxout, NIN and the recurrent convolutional
network (Liao & Carneiro, arXiv 1508.00330; Goodfellow et al., arXiv 1302.4389; Lin et al., arXiv 1312.4400;
Liang & Hu, CVPR 2015).

The survey quotes the rows but MIM from their papers: other networks, each with its own training. Here they
are in profile `paper` as far as their training is known. Besides them is the experiment that the paper's
argument asks for: one network of nine convolutions, {ReLU, maxout} x {BN, none} (nin_plain, nin_bn,
mim_plain, mim), of one, two and three blocks, and MIM at the plain network's number of parameters
(mim_equal).

    balance of a layer = mean over its units of -sum_j p_j ln p_j / ln k,   p_j = share that piece j wins

Training, in the state of table_02_normprop: SGD with momentum, weight decay, falling rates, GCN and ZCA for
CIFAR-10; MNIST, which the papers leave raw, is standardised by one mean and deviation (ours). From the
papers: the networks of the quoted rows, the training of maxout and of NIN on CIFAR-10. From memory or ours:
MIM's sizes and the rest (conf/settings/T9/paper.yaml says which).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from experiments import images, table_02_normprop
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.images import train
from experiments.table_02_normprop import Schedule

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train"]


@dataclass
class Network:
    name: str  # mim | lin_nin | maxout | rcnn
    size: str  # cifar | mnist: the papers' networks for these sets
    width: float  # all hidden channels times this
    dropout: float  # of hidden layers
    start: list[float]  # of the initial weights of lin_nin and maxout, see Table 2
    activation: str = "maxout"  # mim: maxout | relu
    pieces: int = 2  # mim: of each unit
    blocks: int = 3  # mim: 1 to 3, of three convolutions each
    equal: bool = False  # mim: so many filters that it has the weights of activation=relu


@dataclass
class Run:
    """What determines a result, and nothing else: this is hashed into the run's id. A key added later gets a
    default.
    """

    unit_filters: ClassVar[bool] = False  # Table 2's, as the next
    input: ClassVar[str] = "channel"

    table: str
    data: Data
    model: Network
    norm: Norm
    optimizer: Optimizer
    preprocessing: str  # raw | gcn_zca
    flip: bool
    schedule: Schedule
    batch_size: int
    epochs: int
    evaluations: int  # in each epoch
    seed: int


STACK = ()
SELECT = "val_error"
COLUMN = {"mnist": "mnist", "mnist5k": "mnist"}  # all other pictures stand for CIFAR-10
LOOKED_AT = 500  # test pictures for the balance of the pieces


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o, plan = run.model, run.optimizer, run.schedule
    names = ("mim", "lin_nin", "maxout", "rcnn")
    must(m.name in names, "model", m.name, f"this table has {', '.join(names)}")
    must(m.size in ("cifar", "mnist"), "model.size", m.size, "choose cifar or mnist")
    must(math.isfinite(m.width) and 0 < m.width <= 8, "model.width", m.width, "a factor above 0, up to 8")
    must(0 <= m.dropout < 1, "model.dropout", m.dropout, "a rate from 0 to below 1")
    must(m.activation in ("maxout", "relu"), "model.activation", m.activation, "choose maxout or relu")
    must(2 <= m.pieces <= 16, "model.pieces", m.pieces, "a maxout unit has 2 pieces or more, up to 16")
    must(1 <= m.blocks <= 3, "model.blocks", m.blocks, "choose 1, 2 or 3")
    relu = m.name == "mim" and m.activation == "relu"
    must(not (relu and m.equal), "model.equal", m.equal, "activation=relu is what others are made equal to")
    drawn = m.name in ("lin_nin", "maxout")
    starts = bool(m.start) and all(math.isfinite(v) and v > 0 for v in m.start)
    must(starts or not drawn, "model.start", m.start, "give numbers above 0")
    must(o.name == "SGD", "optimizer", o.name, "this table has SGD with momentum (sgd)")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(run.preprocessing in ("raw", "gcn_zca"), "preprocessing", run.preprocessing, "choose raw or gcn_zca")
    normed = run.norm.name != "none"
    must(not (normed and m.name in ("maxout", "rcnn")), "norm", run.norm.name, f"{m.name} has none here")
    must(run.norm.name != "normprop", "norm", "normprop", "it replaces ReLU layers: see Table 2")
    falls = not plan.linear or (len(plan.linear) == 2 and plan.linear[0] > 0 and 0 <= plan.linear[1] <= 1)
    must(falls, "schedule.linear", plan.linear, "give [until this epoch, share from 0 to 1], or []")
    grows = not plan.momentum or (
        len(plan.momentum) == 2 and plan.momentum[0] > 0 and 0 <= plan.momentum[1] < 1
    )
    must(grows, "schedule.momentum", plan.momentum, "give [until this epoch, momentum below 1], or []")
    must(all(v > 0 for v in plan.tenths), "schedule.tenths", plan.tenths, "epochs above 0")
    halves = math.isfinite(plan.halve_every) and plan.halve_every >= 0
    must(halves, "schedule.halve_every", plan.halve_every, "epochs, or 0 for never")
    must(run.batch_size >= (2 if normed else 1), "batch_size", run.batch_size, "must be at least 2 here")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(run.evaluations >= 1, "evaluations", run.evaluations, "must be at least 1 an epoch")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    # what a network does not have makes no other run
    unused: dict[str, Any] = {} if drawn else {"start": []}
    if m.name != "mim":
        unused |= {"activation": "maxout", "blocks": 3, "equal": False}
    if m.name != "mim" or relu:
        unused["pieces"] = 2
    return replace(run, model=replace(m, **unused))


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column). `plain` says without BN, `b2` of two blocks, `k3` of three pieces."""
    m, norm = run.model, run.norm.name
    if m.name == "mim":
        usual = "batch" if m.activation == "maxout" else None  # a plain NIN is told from the published one
        row = "mim" if m.activation == "maxout" else "nin"
        if norm != usual:
            row += {"none": "_plain", "batch": "_bn"}.get(norm, f"_{norm}")
        row += "_equal" if m.equal else ""
        row += f"_k{m.pieces}" if m.pieces != 2 and m.activation == "maxout" else ""
        row += f"_b{m.blocks}" if m.blocks != 3 else ""
    else:
        row = {"lin_nin": "nin", "maxout": "maxout", "rcnn": "rcnn"}[m.name]
        row += "" if norm == "none" else {"batch": "_published_bn"}.get(norm, f"_published_{norm}")
    column = COLUMN.get(run.data.name, "cifar10")
    return row, column + ("_flips" if run.flip else "")


class State(table_02_normprop.State):
    """Table 2's: schedules, whitened pictures, limits of filters; and the balance of the pieces."""

    run: Any

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        run: Any = runs[0]  # it has what Table 2's functions look at
        if hasattr(data.x_train, "batches"):
            raise BadInput(f"{data.name}: this table holds its pictures in memory; give data.limit_train")
        data = table_02_normprop.prepared(data, run)
        images.State.__init__(self, run, data, device, partial(built, run))
        self.regroup()
        self.optimizer.register_step_pre_hook(self.before_step)
        self.optimizer.register_step_post_hook(self.after_step)
        self.begun, self.seconds, self.counted = 0.0, 0.0, 0

    def watched(self) -> dict[str, float]:
        """Entropy of the pieces' shares and share of degenerate units: of each layer, and means over layers;
        of test pictures.
        """
        from data.batches import take
        from experiments.models.maxout import balance

        self.seconds, self.counted = 0.0, 0
        x = self.data.x_test[:LOOKED_AT]
        net: Any = self.net.single
        layers = balance(net, (take(x, rows) for rows in rows_of(x)))
        entropy, degenerate = ([getattr(layer, k) for layer in layers] for k in ("entropy", "degenerate"))
        found = {"chance": 100 - 100 / len(self.data.classes)}
        found["parameters"] = float(sum(p.numel() for p in net.parameters()))
        for name, values in (("entropy", entropy), ("degenerate", degenerate)):
            found[name] = sum(values) / len(values)
            found |= {f"{name}_{i}": value for i, value in enumerate(values, 1)}
        return found


def rows_of(x: Any) -> Any:
    import torch

    return torch.arange(len(x), device=x.device).split(images.piece(x))


def built(run: Run, data: Any) -> Any:
    """The network, or BadInput, one line, where it does not fit the pictures or the normaliser not it."""
    try:
        return build(run, data)
    except ValueError as e:
        raise BadInput(f"model={run.model.name}: {e}") from e


def build(run: Run, data: Any) -> Any:
    import norms
    from experiments.models.mim import MIM, MaxoutMNIST, equal_width
    from experiments.models.nin import LinNIN, Maxout
    from experiments.models.rcnn import RCNN

    m, shape, classes = run.model, data.x_train.shape[1:], len(data.classes)
    norm = partial(norms.build, run.norm.name, dim=2, **run.norm.options)
    if m.name == "lin_nin":
        return LinNIN(shape, classes, norm, m.size, m.width, m.dropout, m.start)
    if m.name == "maxout":
        kind = Maxout if m.size == "cifar" else MaxoutMNIST
        return kind(shape, classes, m.width, (0.2 if m.dropout else 0.0, m.dropout), m.start)
    if m.name == "rcnn":
        return RCNN(shape, classes, m.size, m.width, dropout=m.dropout)
    width = equal_width(shape, classes, m.size, m.blocks, m.pieces, m.width) if m.equal else m.width
    return MIM(shape, classes, norm, m.size, m.blocks, m.pieces, m.activation, width, m.dropout)


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves, one value an evaluation; errors in per cent. What is said of
    layers is taken at the evaluation of the best validation error, as test_error.
    """
    val, test = curves["val_error"], curves["test_error"]
    chosen = val.index(min(val))
    of_layers = [k for k in curves if k.startswith(("entropy", "degenerate"))]
    return {
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "test_error_best": min(test),
        "val_error": val[chosen],
        "chance": curves["chance"][0],
        "stable": float(all(v is not None and math.isfinite(v) for v in curves["train_loss"])),
        "epoch_best_val": curves["epoch"][chosen],
        "parameters": curves["parameters"][0],
        "train_loss_last": curves["train_loss"][-1],
        **{k: curves[k][chosen] for k in of_layers},
    }
