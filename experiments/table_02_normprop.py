"""Table 2: network in network with normalisation propagation, batch normalisation, or neither, and maxout
(Arpit et al., arXiv 1603.01431; Lin et al., arXiv 1312.4400; Goodfellow et al., arXiv 1302.4389).

The printed rows are not like for like: NIN and Maxout are other authors' networks, with dropout and whitened
pictures; NIN + NP and NIN + BN are one network of nine convolutions, on raw pictures, without dropout. Here
are both: the rows nin and maxout as published (`preprocessing=gcn_zca`), and the row plain, that very network
with no normaliser at all, and maxout_raw, on raw pictures.

From the paper: the network, Glorot's initial weights, gamma = 1/1.21, SGD with momentum 0.9, batches of 50,
learning rate 0.05 halved every 25 epochs, filters of unit length after every step, normalisation of the data
by mini-batch statistics. Ours, where it is silent: which filters are rescaled (those that a normaliser
follows), L2 of 5e-4 as weight decay, none on gamma and beta, logits without a normaliser, the validation
split's epoch. Lin's and Goodfellow's rows have their papers' published settings (rates of single layers,
falling rates, growing momentum); ours: what is said in conf/settings/T2/paper.yaml.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from experiments import images
from experiments.config import BadInput, Data, Norm, Optimizer
from experiments.images import train

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train"]


@dataclass
class Network:
    name: str  # nin (Arpit et al.) | lin_nin | maxout
    width: float  # all hidden channels times this
    dropout: float  # of hidden layers
    swap_padding: bool  # nin: padding 2 with the 5x5 of layer 7, not with the 1x1 of layer 8
    last: bool  # nin: the normaliser acts on the last 1x1, too
    size: str  # lin_nin: cifar | svhn | mnist, Lin et al.'s networks
    start: list[float]  # of the initial weights, layer by layer, the last for all that follow; lin_nin: the
    # standard deviation of Gaussians, maxout: the bound of uniform ones; nin has Glorot's


@dataclass
class Schedule:
    """Of the learning rate and the momentum; epochs may be fractions."""

    halve_every: float  # epochs in which the rate falls by half; 0: never
    tenths: list[float]  # epochs at which it falls to a tenth (Lin et al.)
    linear: list[float]  # [until, share]: falls evenly to this share at that epoch (Goodfellow et al.)
    momentum: list[float]  # [until, value]: the optimizer's momentum grows evenly to it (Goodfellow et al.)


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
    preprocessing: str  # raw | gcn_zca
    input: str  # of raw pictures: batch | global (each pixel) | channel
    unit_filters: bool  # filters before a normaliser are rescaled to length 1 after every step
    flip: bool
    schedule: Schedule
    batch_size: int
    epochs: int
    evaluations: int  # in each epoch
    seed: int


STACK = ()
SELECT = "val_error"
BASES = {("nin", "none"): "plain", ("nin", "normprop"): "nin_np", ("nin", "batch"): "nin_bn"}
COLUMN = {"cifar10": "cifar10", "glyphs": "cifar10", "cifar100": "cifar100", "tinyimagenet100": "cifar100",
          "svhn": "svhn"}  # fmt: skip
OF_BATCH = ("batch", "renorm", "diminishing", "l1", "mean_only", "domain")  # with statistics of the batch
L2 = 2.5e-4  # half the weight decay that the source calls its least
EARLY = 10  # epochs over which the spread of the validation error is taken
LIN = ("cifar", "svhn", "mnist")
LOOKED_AT = 500  # test pictures for the means of layers' inputs


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    m, o = run.model, run.optimizer
    must(m.name in ("nin", "lin_nin", "maxout"), "model", m.name, "this table has nin, lin_nin and maxout")
    must(math.isfinite(m.width) and 0 < m.width <= 8, "model.width", m.width, "a factor above 0, up to 8")
    must(0 <= m.dropout < 1, "model.dropout", m.dropout, "a rate from 0 to below 1")
    must(o.name == "SGD", "optimizer", o.name, "this table has SGD with momentum (sgd)")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(run.preprocessing in ("raw", "gcn_zca"), "preprocessing", run.preprocessing, "choose raw or gcn_zca")
    must(run.input in ("batch", "global", "channel"), "input", run.input, "choose batch, global or channel")
    must(not (run.norm.name != "none" and m.name == "maxout"), "norm", run.norm.name, "maxout has none here")
    must(not (run.norm.name == "normprop" and m.name != "nin"), "norm", "normprop", "it needs model=nin")
    must(m.size in LIN, "model.size", m.size, f"choose one of {', '.join(LIN)}")
    starts = bool(m.start) and all(math.isfinite(v) and v > 0 for v in m.start)
    must(starts or m.name == "nin", "model.start", m.start, "give numbers above 0")
    plan, halves = run.schedule, run.schedule.halve_every
    must(
        math.isfinite(halves) and halves >= 0,
        "schedule.halve_every",
        halves,
        "epochs above 0, or 0 for never",
    )
    must(all(v > 0 for v in plan.tenths), "schedule.tenths", plan.tenths, "epochs above 0")
    for key, highest, what in (("linear", 1.0, "share"), ("momentum", 0.999, "momentum")):
        pair = getattr(plan, key)
        fits = not pair or (len(pair) == 2 and pair[0] > 0 and 0 <= pair[1] <= highest)
        must(fits, f"schedule.{key}", pair, f"give [until this epoch, {what} from 0 to {highest:g}], or []")
    of_batch = run.norm.name in OF_BATCH or (run.preprocessing == "raw" and run.input == "batch")
    least = 2 if of_batch else 1
    must(run.batch_size >= least, "batch_size", run.batch_size, f"must be at least {least} here")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(run.evaluations >= 1, "evaluations", run.evaluations, "must be at least 1 an epoch")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    # what a network does not have makes no other run
    unused: dict[str, Any] = {"start": []} if m.name == "nin" else {"swap_padding": False, "last": False}
    unused |= {"size": "cifar"} if m.name != "lin_nin" else {}
    return dataclasses.replace(
        run,
        model=dataclasses.replace(m, **unused),
        input=run.input if run.preprocessing == "raw" else "batch",
        unit_filters=run.unit_filters and run.norm.name != "none",
    )


def can_stack(run: Run) -> bool:
    return False


def cell(run: Run) -> tuple[str, str]:
    """(row, column). A row is a network and its normaliser, and what it has besides: `_dropout`, `_gamma1`,
    `_global_b1` (each pixel normalised by the training set's statistics, batches of 1), `_at_0.4` (a constant
    learning rate), `_last` (the last 1x1 normalised, too), `_decay_0.001` (another weight decay). With flips
    a column of its own.
    """
    m, norm = run.model, run.norm
    if m.name == "nin":
        row = BASES.get((m.name, norm.name), f"nin_{norm.name}")
        row += "_dropout" if m.dropout else ""
        row += "_last" if m.last else ""
        row += f"_decay_{2 * run.optimizer.l2:g}" if run.optimizer.l2 != L2 else ""
        row += "_gamma1" if norm.options.get("gamma") == 1 else ""
        row += f"_global_b{run.batch_size}" if run.input == "global" else ""
        row += "_whitened" if run.preprocessing == "gcn_zca" else ""
    else:
        row = {"lin_nin": "nin", "maxout": "maxout"}[m.name]
        row += "" if norm.name == "none" else f"_{norm.name}"
        row += "" if run.preprocessing == "gcn_zca" else "_raw"
    plan = run.schedule
    row += f"_at_{run.optimizer.lr:g}" if plan.halve_every == 0 and not (plan.tenths or plan.linear) else ""
    letters = run.data.options.get("alphabet") == "letters"
    column = "cifar100" if letters else COLUMN.get(run.data.name, run.data.name)
    return row, column + ("_flips" if run.flip else "")


class State(images.State):
    """What training changes; the data's preparation, the rescaling of filters, what is watched."""

    run: Run

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        run = runs[0]
        if hasattr(data.x_train, "batches"):
            raise BadInput(f"{data.name}: this table holds its pictures in memory; give data.limit_train")
        super().__init__(run, prepared(data, run), device, partial(built, run))
        self.regroup()
        self.optimizer.register_step_pre_hook(self.before_step)
        self.optimizer.register_step_post_hook(self.after_step)
        self.begun, self.seconds, self.counted = 0.0, 0.0, 0  # of training steps since the last evaluation

    def regroup(self) -> None:
        """The optimizer's parameters in groups by weight decay and by the layer's own share of the rate."""
        from experiments import measure
        from experiments.models.nin import rates

        shares = {id(p): share for p, share in rates(cast(Any, self.net.single)[1])}
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, p in self.net.named_parameters():
            decay = 2 * self.l2() if measure.is_weight(name) else 0.0
            groups.setdefault((decay, shares.get(id(p), 1.0)), []).append(p)
        self.optimizer.param_groups.clear()
        for (decay, share), some in groups.items():
            self.optimizer.add_param_group({"params": some, "weight_decay": decay, "share": share})

    def input(self, data: Any) -> Any:
        from torch import nn

        from experiments.models.inputs import Standardise
        from experiments.models.pixels import BatchPixelNorm, PixelNorm

        if self.run.preprocessing != "raw":
            return nn.Identity()
        if self.run.input == "channel":
            return Standardise.of(data.x_train)
        return PixelNorm.of(data.x_train) if self.run.input == "global" else BatchPixelNorm(data.x_train[0])

    def rate(self, epoch: float) -> float:
        """The learning rate: halved every so many epochs, a staircase; or by the schedule's other rules."""
        plan, lr = self.run.schedule, self.run.optimizer.lr
        if plan.halve_every:
            lr *= 0.5 ** math.floor(epoch / plan.halve_every)
        if plan.linear:
            until, share = plan.linear
            lr *= 1 - (1 - share) * min(epoch / until, 1)
        return lr * 0.1 ** sum(epoch >= at for at in plan.tenths)

    def momentum(self, epoch: float) -> float:
        start = float(self.run.optimizer.options.get("momentum", 0))
        if not self.run.schedule.momentum:
            return start
        until, end = self.run.schedule.momentum
        return start + (end - start) * min(epoch / until, 1)

    def before_step(self, optimizer: Any, *_: Any) -> None:
        epoch = self.epoch + self.batch / self.steps_per_epoch
        for group in optimizer.param_groups:
            group["lr"] *= group["share"]
            group["momentum"] = self.momentum(epoch)

    def distort(self, x: Any, generator: Any) -> Any:
        import torch

        from data import augment
        from experiments.distributed import rank, size

        self.begun = self.clock()
        if x.dtype == torch.uint8:
            return augment.pictures(x, generator, self.run.flip, share=(rank(), size()))
        if self.run.flip:
            mirrored = torch.randint(2, (len(x) * size(),), generator=generator)[rank() :: size()].bool()
            x = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)
        return x

    def after_step(self, *_: Any) -> None:
        from experiments.models import nin

        network = cast(Any, self.net.single)[1]
        if self.run.model.name == "maxout":
            nin.max_norm_(network)
        elif self.run.unit_filters:
            nin.unit_filters_(network)
        self.seconds += self.clock() - self.begun
        self.counted += 1

    def clock(self) -> float:
        """Seconds: of this process's own time a thread on a CPU, where other runs may go on beside it; of
        the clock on a GPU, when all it was given is done.
        """
        import torch

        if self.device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def watched(self) -> dict[str, float]:
        """Seconds of training an epoch, on this machine, without evaluation; and the mean over the layers
        after the first of |mean of a layer's input channel over test pictures and positions|, averaged over
        channels.
        """
        import torch

        from data.batches import take

        epoch = self.seconds / max(self.counted, 1) * self.steps_per_epoch
        self.seconds, self.counted = 0.0, 0
        sums: dict[Any, Any] = {}

        def look(module: Any, inputs: Any) -> None:
            sums[module] = sums.get(module, 0) + inputs[0].mean((2, 3)).double().sum(0)

        layers = [m for m in self.net.single.modules() if isinstance(m, torch.nn.Conv2d)][1:]
        hooks = [m.register_forward_pre_hook(look) for m in layers]
        x = self.data.x_test[:LOOKED_AT]
        with torch.no_grad():
            for rows in torch.arange(len(x), device=x.device).split(images.piece(x)):
                self.net(take(x, rows), shared=True)
        for hook in hooks:
            hook.remove()
        means = [(channels / len(x)).abs().mean().item() for channels in sums.values()]
        return {
            "chance": 100 - 100 / len(self.data.classes),
            "epoch_seconds": epoch,
            "input_mean": sum(means) / len(means),
        }


def prepared(data: Any, run: Run) -> Any:
    """The data with whitened pictures, float32, where the run wants them; fitted on the training part."""
    if run.preprocessing == "raw":
        return data
    from data import store
    from data.whiten import ZCA, gcn

    x = gcn(data.x_train)
    rows = f"{run.data.val_fraction} {run.data.limit_train}"
    try:
        zca = ZCA.cached(x, store.cache_folder(None), f"{data.fingerprint} {rows} gcn 55")
    except OSError:  # nowhere to keep it
        zca = ZCA.fit(x)
    done = {"x_train": x}
    for part in ("train", "val", "test"):
        x = done.setdefault(f"x_{part}", x if part == "train" else gcn(getattr(data, f"x_{part}")))
        for some in x.split(images.piece(x)):  # in place: one copy of the pictures in float32 is enough
            some.copy_(zca.transform(some))
    return dataclasses.replace(data, **done)


def built(run: Run, data: Any) -> Any:
    """The network, or BadInput, one line, where it does not fit the pictures."""
    try:
        return build(run, data)
    except ValueError as e:
        raise BadInput(f"model={run.model.name}: {e}") from e


def build(run: Run, data: Any) -> Any:
    """The network; ValueError, one line, where the normaliser does not fit it."""
    import norms
    from experiments.models.nin import LinNIN, Maxout, NormPropNIN

    m, shape, classes = run.model, data.x_train.shape[1:], len(data.classes)
    if m.name == "maxout":
        return Maxout(shape, classes, m.width, (0.2 if m.dropout else 0.0, m.dropout), m.start)
    norm = partial(norms.build, run.norm.name, dim=2, **run.norm.options)
    if m.name == "lin_nin":
        return LinNIN(shape, classes, norm, m.size, m.width, m.dropout, m.start)
    more: dict[str, Any] = {k: getattr(m, k) for k in ("width", "swap_padding", "last", "dropout")}
    if run.norm.name == "normprop":
        return NormPropNIN(shape, classes, propagation=run.norm.options, **more)
    return NormPropNIN(shape, classes, norm, **more)


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves, one value an evaluation; errors in per cent.

    early_spread: the standard deviation of the validation error about a smooth curve, from second differences
    v[i-1] - 2 v[i] + v[i+1], whose variance for independent noise is 6 times that of the noise.
    """
    val, test = curves["val_error"], curves["test_error"]
    chosen = val.index(min(val))
    early = [v for v, e in zip(val, curves["epoch"], strict=True) if e <= EARLY]
    bends = [a - 2 * b + c for a, b, c in zip(early, early[1:], early[2:], strict=False)]
    spread = {"early_spread": math.sqrt(sum(x * x for x in bends) / len(bends) / 6)} if bends else {}
    return {
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "test_error_best": min(test),
        "val_error": val[chosen],
        "chance": curves["chance"][0],
        "stable": float(all(v is not None and math.isfinite(v) for v in curves["train_loss"])),
        "epoch_best_val": curves["epoch"][chosen],
        "epoch_seconds": sorted(curves["epoch_seconds"])[len(curves["epoch_seconds"]) // 2],
        "input_mean": curves["input_mean"][-1],
        "train_loss_last": curves["train_loss"][-1],
        **spread,
    }
