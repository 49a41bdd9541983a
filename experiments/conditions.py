"""One small network under one condition (Table 11): how it is trained, and what is measured of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from data.batches import take
from experiments import measure
from experiments.config import BadInput
from experiments.models.inputs import Standardise
from experiments.models.small import small_net
from norms.normprop import NormPropLinear, unit_norm_
from norms.renorm import BatchRenorm1d, BatchRenorm2d
from norms.weight import data_dependent_init_

NOISE_BATCHES = 100  # at most, of which the gradient's variance is taken
CHUNK = 500  # examples that are evaluated at a time


def built(run: Any, shape: Any, classes: int) -> nn.Module:
    """The network of a run; BadInput, one line, where the method does not fit it."""
    m = run.model
    try:
        return small_net(
            m.name, shape, m.width, m.depth, classes, run.norm.name, run.norm.options,
            dropout=run.dropout, plain_dropout=run.dropout_kind == "plain",
            activation=m.activation, scale=run.scale,
        )  # fmt: skip
    except (ValueError, TypeError) as e:
        raise BadInput(f"norm={run.norm.name}, model={m.name}: {str(e).splitlines()[0]}") from e


class Training:
    """A network, its optimizer and how far it is. Dropout draws from torch's generator, which the caller
    saves.
    """

    def __init__(self, run: Any, data: Any, device: Any) -> None:
        self.run, self.data, self.device = run, data, device
        torch.manual_seed(run.seed)
        net = built(run, data.x_train.shape[1:], len(data.classes))
        by_groups_(net, run)
        self.net = nn.Sequential(Standardise.of(data.x_train.cpu()), net).to(device)
        if run.norm.name == "weight_norm" and run.start == "data":
            first = measure.shuffle(len(data.y_train), run.seed, -1)[: max(run.batch_size, 32)]
            data_dependent_init_(self.net, take(data.x_train, first.to(device)))
        options = {"fused": True if device.type == "cpu" else None, **run.optimizer.options}
        self.optimizer = getattr(torch.optim, run.optimizer.name)(
            self.net.parameters(), lr=run.optimizer.lr, weight_decay=2 * run.optimizer.l2, **options
        )
        self.steps_per_epoch = steps_of(run, data.y_train)
        self.epoch, self.batch = 0, 0  # the next minibatch
        self.loss_sum, self.loss_steps = torch.zeros((), device=device), 0
        torch.manual_seed(run.seed)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counts": [self.epoch, self.batch, self.loss_steps],
            "loss_sum": self.loss_sum,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch, self.loss_steps = state["counts"]
        self.loss_sum = state["loss_sum"]

    @property
    def step(self) -> int:
        return self.epoch * self.steps_per_epoch + self.batch

    def loss(self, index: Tensor) -> Tensor:
        """Mean over a batch, whose statistics are those of each `groups` examples apart."""
        x, y = take(self.data.x_train, index), self.data.y_train[index]
        parts = [cross_entropy(self.net(x[rows]), y[rows], reduction="sum")
                 for rows in self.parts(torch.arange(len(index), device=x.device))]  # fmt: skip
        return sum(parts[1:], parts[0]) / len(index)

    def steps(self, evaluations: int) -> Iterator[bool]:
        """A step at a time to the end of training; True where one of an epoch's evaluations is due."""
        n = self.steps_per_epoch
        due = {round((k + 1) * n / evaluations) for k in range(evaluations)}
        while self.epoch < self.run.epochs:
            order = self.order()
            while self.batch < n:
                self.advance(order[self.batch])
                self.batch += 1
                told = self.batch in due
                if self.batch == n:
                    self.epoch, self.batch = self.epoch + 1, 0
                yield told
                if self.batch == 0:
                    break

    def advance(self, index: Tensor) -> None:
        """One step of the optimizer on these rows."""
        self.net.train()
        loss = self.loss(index)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        unit_norm_(self.net)
        self.loss_sum += loss.detach()
        self.loss_steps += 1

    def order(self) -> Tensor:
        """Rows of this epoch's batches [steps, B]."""
        return self.batches("train", self.epoch)

    def batches(self, part: str, epoch: int = 0) -> Tensor:
        """Rows of a part of the data in whole batches [steps, B], as the run orders them."""
        run, y = self.run, getattr(self.data, f"y_{part}")
        size = min(run.batch_size, len(y))
        rows = measure.shuffle(len(y), run.seed, epoch)
        if run.order == "labels":
            rows = by_label(rows, y.cpu(), size, run.seed * 1_000_003 + epoch)
        return rows[: len(rows) // size * size].view(-1, size).to(self.device)

    def parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """A batch's rows in parts that share their statistics."""
        return rows.split(self.run.groups or len(rows))

    def mean_loss(self) -> float:
        """Since the last call."""
        mean = (self.loss_sum / max(1, self.loss_steps)).item()
        self.loss_sum, self.loss_steps = torch.zeros_like(self.loss_sum), 0
        return mean

    # ---- what is measured ----

    @torch.no_grad()
    def error(self, part: str) -> tuple[float, Tensor]:
        """Error in per cent on a part of the data, and which examples are wrong, bool [N]; outputs that are
        not finite are.
        """
        self.net.eval()
        x, y = getattr(self.data, f"x_{part}"), getattr(self.data, f"y_{part}")
        wrong = []
        for rows in torch.arange(len(y), device=y.device).split(CHUNK):
            logits = self.net(take(x, rows))
            wrong.append((logits.argmax(1) != y[rows]) | ~logits.isfinite().all(1))
        found = torch.cat(wrong)
        return 100 * found.double().mean().item(), found

    @torch.no_grad()
    def disagreement(self) -> float:
        """Mean over test examples and classes of |f_train(x) - f_eval(x)|, by batches ordered and split as in
        training; dropout apart. 0 where both are one computation, bit by bit.
        """
        twin = copy.deepcopy(self.net)
        for layer in twin.modules():
            if isinstance(layer, nn.Dropout | nn.AlphaDropout):
                layer.p = 0.0
        total, n = 0.0, 0
        for rows in (part for batch in self.batches("test") for part in self.parts(batch)):
            x = take(self.data.x_test, rows)
            ours, theirs = twin.train()(x), self.net.eval()(x)
            total, n = total + (ours - theirs).abs().sum().item(), n + ours.numel()
        return total / n

    def noise(self) -> float:
        """Trace of the covariance of a batch's gradient over the squared length of its mean, at the weights
        as they are. The length of a mean of n gradients has a share trace / n of their noise, which is taken
        out, but for an n-th of it: a noise above n - 1 cannot be told from n batches.
        """
        kept, self.net = self.net, copy.deepcopy(self.net).train()  # whose averages move with the batches
        total, square, n = torch.zeros(0), 0.0, 0
        for rows in self.batches("train")[:NOISE_BATCHES]:
            self.net.zero_grad(set_to_none=True)
            self.loss(rows).backward()
            g = torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None]).double()
            total = total + g if n else g
            square, n = square + g.square().sum().item(), n + 1
        self.net = kept
        found = (total / n).square().sum().item()
        trace = (square / n - found) * n / max(1, n - 1)
        length = max(found - trace / n, found / n)
        return trace / length if length else math.inf

    @torch.no_grad()
    def distances(self) -> dict[str, float]:
        """Kolmogorov-Smirnov distances of what enters and what leaves the activations to N(0, 1), the mean
        over layers, and of what leaves them to the standardised rectified normal (max(z, 0) - c2) / c1.
        """
        into, out = entering(self.net.eval(), take(self.data.x_test, self.batches("test")[0]))
        return {
            "ks_input": sum(map(ks_normal, into)) / len(into),
            "ks_output": sum(map(ks_normal, out)) / len(out),
            "ks_rectified": sum(map(ks_rectified, out)) / len(out),
        }


def by_groups_(net: nn.Module, run: Any) -> None:
    """Where a batch is split into groups, a layer sees several of them a step: its averages and the schedule
    of batch renormalisation are slowed down by as much, to what they are in steps.
    """
    times = run.batch_size / run.groups if run.groups else 1.0
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | BatchRenorm1d | BatchRenorm2d):
            assert layer.momentum is not None
            layer.momentum /= times
        if isinstance(layer, BatchRenorm1d | BatchRenorm2d):
            for name in ("warmup_steps", "r_steps", "d_steps"):
                setattr(layer, name, round(getattr(layer, name) * times))


def steps_of(run: Any, y: Tensor) -> int:
    """Whole batches of an epoch."""
    if run.order == "random":
        return len(y) // run.batch_size  # the last, smaller one is left out
    return int((y.unique(return_counts=True)[1] // (run.batch_size // 2)).sum()) // 2


def by_label(rows: Tensor, y: Tensor, size: int, seed: int) -> Tensor:
    """The same rows so that a batch of `size` has examples of two labels: the shuffled rows of each label are
    cut into halves of a batch, and these put together at random. What does not fill a half is left out.
    """
    half = size // 2
    halves = []
    for label in y.unique().tolist():
        mine = rows[y[rows] == label]
        halves += list(mine[: len(mine) // half * half].split(half))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(halves), generator=generator).tolist()
    return torch.cat([halves[k] for k in order])


def entering(net: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What enters the activations of a network of fully connected layers, and what leaves them (of NormProp,
    its layers), layer by layer.
    """
    into: list[Tensor] = []
    out: list[Tensor] = []

    def see(layer: Any, given: tuple[Tensor, ...], given_back: Tensor) -> None:
        if isinstance(layer, NormPropLinear):
            w = layer.weight
            into.append(linear(given[0], w / w.norm(dim=1, keepdim=True)).flatten())
        else:
            into.append(given[0].flatten().clone())
        out.append(given_back.flatten().clone())

    watched = [m for m in net.modules() if isinstance(m, NormPropLinear | nn.ReLU | nn.SELU)]
    hooks = [layer.register_forward_hook(see) for layer in watched]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return into, out


def ks_normal(values: Tensor) -> float:
    """The largest |F_n - Phi|."""
    z = values.double().sort().values
    return _ks(z, torch.special.ndtr(z), torch.special.ndtr(z))


MEAN = 1 / math.sqrt(2 * math.pi)  # of max(z, 0), z ~ N(0, 1)
STD = math.sqrt(0.5 * (1 - 1 / math.pi))


def ks_rectified(values: Tensor) -> float:
    """The largest |F_n - F|, F that of (max(z, 0) - MEAN) / STD: an atom of 1/2 at -MEAN / STD."""
    z = (values.double().sort().values * STD + MEAN).mul(1e6).round().div(1e6)  # the atom, rounding apart
    above = torch.where(z < 0, 0.0, torch.special.ndtr(z))  # F at z
    below = torch.where(z <= 0, 0.0, torch.special.ndtr(z))  # just before
    return _ks(z, above, below)


def _ks(z: Tensor, above: Tensor, below: Tensor) -> float:
    """Of sorted values with the distribution function at them and just before them; equal values are one
    jump of F_n.
    """
    n = len(z)
    after = torch.searchsorted(z, z, right=True).double() / n
    before = torch.searchsorted(z, z, right=False).double() / n
    return max((after - above).abs().max().item(), (before - below).abs().max().item())
