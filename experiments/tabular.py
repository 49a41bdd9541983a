"""What Tables 5 and 6 share: small networks on tables of numbers, trained by plain gradient descent, many at
a time (Klambauer et al., arXiv 1706.02515).

From the paper: the networks and their grids, SELU's initial values and dropout, 100 epochs, the epoch chosen
on the validation curve smoothed by a moving average of 10 values. Ours, where it is silent: batches of at
most 128 (as in the authors' public script for another figure), standardised inputs, the moving average taken
over the last 10 epochs.

Members of a population differ in seed, fold, learning rate and dropout rate. Initial values and dropout
masks come from each seed's own generators, the data order from seed and epoch, so that a member is the same
run that it would be alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments.config import BadInput, Data, Norm, Optimizer

WINDOW = 10  # epochs in the moving average of the validation curve
PROBED = 256  # training rows on which activations and gradients are looked at


@dataclass
class Network:
    name: str  # fnn | highway | resnet; svm | forest (Table 5)
    layers: int | None  # hidden layers; of a resnet, blocks
    units: int | None
    form: str | None  # rectangular | conic; of a resnet, rectangular | diavolo
    bottleneck: float | None  # of a diavolo block
    dropout: float | None
    C: float | None  # of an svm, as is gamma
    gamma: float | None
    max_features: float | None  # of a forest: share of the inputs that a split may look at
    trees: int | None


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
    placement: str | None  # of a layer: before | after the activation
    statistics: str | None  # of batch normalisation: updated | never
    dropout_kind: str | None  # of a self-normalizing network: alpha | plain
    batch_size: int
    epochs: int
    seed: int


STACK = (
    "seed", "data.options.fold", "optimizer.lr", "model.dropout",
    "model.C", "model.gamma", "model.max_features",
)  # fmt: skip
NETWORKS = ("fnn", "highway", "resnet")
CLASSICAL = ("svm", "forest")
ROW = {"none": "msra", "weight_norm": "weight"}  # of a plain network; other normalisers name themselves
NO_LAYER = ("none", "snn", "weight_norm")


def must(ok: bool, key: str, value: Any, wanted: str) -> None:
    if not ok:
        raise BadInput(f"{key}={value}: {wanted}")


def check(run: Run) -> Run:
    """The run with what has no meaning for its method set to null, so that it does not make different runs;
    or BadInput with one line.
    """
    m, forms = run.model, {"fnn": ("rectangular", "conic"), "resnet": ("rectangular", "diavolo")}
    must(m.name in (*NETWORKS, *CLASSICAL), "model", m.name, f"choose {', '.join((*NETWORKS, *CLASSICAL))}")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    must(0 < run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "must be between 0 and 1")
    if m.name in CLASSICAL:
        return _classical(run)
    must(type(m.layers) is int and m.layers >= 1, "model.layers", m.layers, "give a number of layers from 1")
    must(type(m.units) is int and m.units >= 1, "model.units", m.units, "give a number of units from 1")
    if m.name == "highway":
        must(run.norm.name == "none", "norm", run.norm.name, "a highway network takes none")
        m = replace(m, form=None)
    else:
        must(m.form in forms[m.name], "model.form", m.form, f"choose {' or '.join(forms[m.name])}")
    if m.name == "resnet" and m.form == "diavolo":
        must(m.bottleneck is not None and 0 < m.bottleneck <= 1, "model.bottleneck", m.bottleneck, "0 to 1")
    else:
        m = replace(m, bottleneck=None)
    must(m.name == "fnn" or run.norm.name not in NO_LAYER[1:], "norm", run.norm.name, f"not in a {m.name}")
    rate = 0.0 if m.dropout is None else m.dropout
    must(math.isfinite(rate) and 0 <= rate < 1, "model.dropout", m.dropout, "a rate from 0 to below 1")
    o = run.optimizer
    must(
        o.name == "SGD" and not o.options,
        "optimizer",
        o.name,
        "these tables have plain gradient descent (sgd)",
    )
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    if run.norm.name in NO_LAYER or m.name != "fnn":
        run = replace(run, placement=None)
    else:
        must(
            run.placement in ("before", "after"),
            "placement",
            run.placement,
            "choose before or after (the activation)",
        )
    if run.norm.name == "batch":
        must(run.statistics in ("updated", "never"), "statistics", run.statistics, "choose updated or never")
    else:
        run = replace(run, statistics=None)
    if run.norm.name == "snn":
        must(
            run.dropout_kind in ("alpha", "plain"), "dropout_kind", run.dropout_kind, "choose alpha or plain"
        )
        run = run if rate else replace(run, dropout_kind="alpha")
    else:
        run = replace(run, dropout_kind=None)
    return replace(run, model=replace(m, dropout=rate, C=None, gamma=None, max_features=None, trees=None))


def _classical(run: Run) -> Run:
    """An SVM or a random forest: nothing of a network."""
    m = run.model
    must(run.norm.name == "none", "norm", run.norm.name, f"a {m.name} takes none")
    if m.name == "svm":
        for key, value in (("model.C", m.C), ("model.gamma", m.gamma)):
            must(
                value is not None and math.isfinite(value) and value > 0, key, value, "give a number above 0"
            )
        m = replace(m, max_features=None, trees=None)
    else:
        ok = m.max_features is not None and 0 < m.max_features <= 1
        must(ok, "model.max_features", m.max_features, "give a share above 0, up to 1")
        must(type(m.trees) is int and m.trees >= 1, "model.trees", m.trees, "give a number of trees from 1")
        m = replace(m, C=None, gamma=None)
    m = replace(m, layers=None, units=None, form=None, bottleneck=None, dropout=None)
    return replace(
        run, model=m, placement=None, statistics=None, dropout_kind=None, batch_size=0, epochs=1,
        optimizer=Optimizer("none", 0.0, 0.0, {}), norm=Norm("none", {}),
    )  # fmt: skip


def row(run: Run) -> str:
    """The method, by the name of its row; what is no row of the tables names itself. Residual blocks have
    batch normalisation, as He et al. made them.
    """
    norm, network = run.norm.name, run.model.name
    if network == "fnn":
        return ROW.get(norm, norm)
    usual = norm == ("batch" if network == "resnet" else "none")
    return network if usual else f"{network}, {norm}"


def can_stack(run: Run) -> bool:
    """A user's own layer need not work under vmap. Estimators are fitted one after the other, in one job."""
    return run.model.name in CLASSICAL or "." not in run.norm.name


def pays_on_cpu(run: Run) -> bool:
    """Up to 128 units stacking pays at any depth, up to 256 in shallow networks (benchmarks/results.md).
    Above, arithmetic is all, and a population would only need more memory; not so on a GPU.
    """
    units, layers = run.model.units or 0, run.model.layers or 0
    return run.model.name in CLASSICAL or units <= 128 or (units <= 256 and layers <= 4)


def build(runs: Sequence[Run], inputs: int, outputs: int) -> Any:
    """The stacked network of these members; ValueError, one line, where the normaliser does not fit it."""
    import norms
    from experiments.models.fnn import FNN, HighwayNet, ResidualNet, widths

    run = runs[0]
    m, options = run.model, dict(run.norm.options)
    if run.statistics == "never":
        options["momentum"] = 0.0  # the averages stay 0 and 1, and that is what evaluation takes
    norm = None if run.norm.name in NO_LAYER else partial(norms.build, run.norm.name, **options)
    layers, units, form = m.layers or 0, m.units or 0, str(m.form)
    members = [r.seed for r in runs], [r.model.dropout or 0.0 for r in runs]
    if m.name == "highway":
        return HighwayNet(*members, inputs, layers, units, outputs)
    if m.name == "resnet":
        inner = units if m.bottleneck is None else max(1, round(units * m.bottleneck))
        return ResidualNet(*members, inputs, layers, units, outputs, norm, inner)
    kind = {"snn": "snn", "weight_norm": "weight"}.get(run.norm.name, "relu")
    hidden = widths(layers, units, form, outputs)
    alpha = run.dropout_kind != "plain"
    return FNN(*members, inputs, hidden, outputs, kind, norm, run.placement, alpha)


def batches(n: int, batch_size: int) -> tuple[int, int]:
    """(steps, size) of an epoch over n rows: the fewest batches of one size, at most `batch_size`. Fewer than
    `steps` rows are left out, others in each epoch. A set smaller than a batch is one batch, and no batch is
    of one row.
    """
    steps = max(1, min(math.ceil(n / batch_size), n // 2))  # of two rows at least
    return steps, n // steps


class State:
    """All that training changes: the networks, and how far they are. `data` is one set for all members, or
    one for each where they differ in fold (F folds, all of equal sizes).
    """

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import torch

        own = list(data) if isinstance(data, Sequence) else [data] * len(runs)
        folds = {id(d): d for d in own}
        places = list(folds)
        self.runs, self.data, self.device = runs, own[0], device
        self.who = torch.tensor([places.index(id(d)) for d in own], device=device)  # fold of each member
        parts = {part: stacked(list(folds.values()), part, device) for part in ("train", "val", "test")}
        (self.x, self.y), self.parts = parts["train"], parts  # x [F, N, D], y [F, N] or [F, N, T]
        n, inputs = self.x.shape[1:]
        must(n >= 2, "data", self.data.name, f"{n} training rows are too few (a batch needs 2)")
        rows = parts["val"][1].shape[1]
        must(rows > 0, "data", self.data.name, "no validation rows: nothing to choose by")
        self.tasks = self.y.shape[2] if self.y.dim() == 3 else 0  # 0: one class of several
        self.steps_per_epoch, self.batch_rows = batches(n, runs[0].batch_size)
        # Members of one seed share initial values, data order and masks, so that seeds pair.
        self.net = build(runs, inputs, self.tasks or len(self.data.classes))
        self.net.to(device, self.x.dtype)
        # One rate a member, shaped to go with each parameter [K, ...]; a single normaliser's has no K.
        rates = torch.tensor([-r.optimizer.lr for r in runs], device=device, dtype=self.x.dtype)
        self.rates = [
            rates.view(-1, *[1] * (p.dim() - 1)) if len(runs) > 1 else rates[0]
            for _, p in self.net.named_parameters()
        ]
        self.epoch = 0
        self.smoothed: list[list[float]] = []  # validation errors of each epoch, K values
        self.extras: dict[str, list[list[float]]] = {}  # figures by layer: name -> K lists

    def logits(self, x: Any, seen: list[Any] | None = None) -> Any:
        """Of every member on the rows of its own fold: x [F, B, D] -> [K, B, C]."""
        if len(x) == 1:
            return self.net(x[0], shared=True, seen=seen)
        return self.net(x[self.who], seen=seen)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "epoch": self.epoch,
            "val": self.smoothed,
            "extras": self.extras,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.epoch, self.smoothed, self.extras = state["epoch"], state["val"], state["extras"]


def stacked(folds: Sequence[Any], part: str, device: Any) -> tuple[Any, Any]:
    """X [F, N, D] and y of one part of all folds."""
    import torch

    x, y = ([getattr(d, f"{v}_{part}") for d in folds] for v in "xy")
    return torch.stack(x).to(device), torch.stack(y).to(device)


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Train from where `state` is to the end; yields (step, metrics) after every epoch, a list of K values
    each. An epoch is the unit of resuming.

    K members: index [K, B] -> x [K, B, D] -> logits [K, B, C].
    """
    import torch

    from data.batches import take
    from experiments import measure

    run, net, n = state.runs[0], state.net, state.y.shape[1]
    K, B, steps = len(state.runs), state.batch_rows, state.steps_per_epoch
    x, y, first = state.x.flatten(0, 1), state.y.flatten(0, 1), n * state.who[:, None]
    parameters = [p for _, p in net.named_parameters()]
    decayed = [measure.is_weight(name) for name, _ in net.named_parameters()]
    if state.epoch == 0:
        state.extras |= probe(state, "start")
    while state.epoch < run.epochs:
        net.train()
        order = torch.stack([measure.shuffle(n, r.seed, state.epoch) for r in state.runs])
        order = order.to(state.device) + first
        masks = Masks(state.runs, net, state.epoch, x)
        total = torch.zeros(K, device=state.device)
        for i in range(steps):
            index = order[:, i * B : (i + 1) * B]  # [K, B]
            logits = net(take(x, index), masks=masks.draw(B))  # [K, B, C]
            loss = losses(logits, y[index])  # [K]
            # The losses do not mix, so that of their sum each member has its own gradient.
            grads: Any = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
            with torch.no_grad():
                for p, g, decay, rate in zip(parameters, grads, decayed, state.rates, strict=True):
                    if g is None:  # of a domain that is not the active one
                        continue
                    if decay and run.optimizer.l2:  # l2 * sum w^2 in the loss is a gradient of 2 l2 w
                        g = g.add(p, alpha=2 * run.optimizer.l2)
                    p.addcmul_(g, rate)
            total += loss.detach()
        net.eval()
        val, _ = errors(state, "val")
        test, scores = errors(state, "test")
        state.smoothed.append(val)
        window = state.smoothed[-WINDOW:]
        metrics = {
            "train_loss": (total / steps).tolist(),
            "val_error": val,
            "val_smoothed": [sum(v[k] for v in window) / len(window) for k in range(K)],
            "test_error": test,
            "scores": scores,
        }
        state.epoch += 1
        if state.epoch == run.epochs:
            state.extras |= probe(state, "end")
        yield state.epoch * steps, metrics


class Masks:
    """Dropout masks of an epoch, [K, B, H] of 0 and the value of a kept unit for each hidden layer, by each
    seed's own generator.

    Members of one seed see the same random numbers, 16 bits each, whatever their rate.
    """

    def __init__(self, runs: Sequence[Run], net: Any, epoch: int, like: Any) -> None:
        import numpy as np
        import torch

        rates = np.array([r.model.dropout or 0.0 for r in runs])
        seeds = sorted({r.seed for r in runs})
        self.hidden, self.like, self.some = net.hidden, like, bool(rates.any())
        self.who = [seeds.index(r.seed) for r in runs]
        self.limits = np.round(rates * 65536).clip(max=65535).astype(np.uint16)[:, None]
        self.kept = torch.tensor(net.mask_values(), dtype=like.dtype)[:, None, None]
        self.generators = [np.random.SFC64([seed, epoch, 7]) for seed in seeds]  # 7: not the stream of others

    def draw(self, batch: int) -> list[Any] | None:
        """For the next batch of this size; None where no member has dropout."""
        import numpy as np
        import torch

        if not self.some:
            return None
        size = batch * sum(self.hidden)
        drawn = [g.random_raw(-(-size // 4)).view(np.uint16)[:size] for g in self.generators]
        kept = np.empty((len(self.who), size), bool)
        for k, seed in enumerate(self.who):
            np.greater_equal(drawn[seed], self.limits[k], out=kept[k])
        masks, at = [], 0
        for width in self.hidden:
            piece = torch.from_numpy(kept[:, at : at + batch * width].reshape(-1, batch, width))
            masks.append((piece * self.kept).to(self.like.device))
            at += batch * width
        return masks


def losses(logits: Any, y: Any) -> Any:
    """Mean loss of each member: softmax cross-entropy for labels y [K, B]; for tasks y [K, B, T], binary
    cross-entropy over the labels that are known (NaN: not measured).
    """
    from torch.nn import functional as F

    if y.dim() == 2:
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(len(y), -1).mean(1)
    known = ~y.isnan()
    each = F.binary_cross_entropy_with_logits(logits, y.nan_to_num(0.0).to(logits.dtype), reduction="none")
    return (each * known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)


def errors(state: State, part: str) -> tuple[list[float], Any]:
    """Of each member: per cent of wrong predictions (one that is not finite is wrong), or for tasks
    100 - 100 AUC, and then what each example contributes to 100 AUC [K, N].
    """
    import torch

    x, y = state.parts[part]
    found = []
    with torch.no_grad():
        for rows, labels in zip(x.split(2000, 1), y.split(2000, 1), strict=True):
            logits = state.logits(rows)  # [K, b, C]
            if not state.tasks:
                labels = labels if len(labels) == 1 else labels[state.who]
                found.append((logits.argmax(-1) != labels) | ~logits.isfinite().all(-1))
            else:
                found.append(logits)
    every = torch.cat(found, 1)
    if not state.tasks:
        return (100 * every.double().mean(1)).tolist(), None
    auc, shares = torch.empty(len(every)).double(), torch.empty(every.shape[:2]).double()
    for fold, labels in enumerate(y):
        mine = (state.who == fold).cpu()
        auc[mine], shares[mine] = (found.cpu() for found in mean_auc(every[state.who == fold], labels))
    return (100 - 100 * auc).tolist(), 100 * shares


def mean_auc(scores: Any, y: Any) -> tuple[Any, Any]:
    """Area under the ROC curve of each member, the mean over the tasks with both classes: scores [K, N, T],
    y [N, T] of 0, 1 and NaN (not measured) -> [K]. Ties count half; a member with a score that is not finite
    has 0.5.

    And the examples' shares in it [K, N], whose mean it is and whose spread its sampling error (DeLong et
    al. 1988): where a task has n+ positives and n- negatives among N, a positive i has
    AUC + (P(s_i > s-) - AUC) N / n+, a negative likewise, an example that was not measured AUC.
    """
    import torch

    found, shares = [], []
    for t in range(y.shape[1]):
        positive, negative = y[:, t] == 1, y[:, t] == 0
        above, below = scores[:, positive, t].contiguous(), scores[:, negative, t].contiguous()
        if not (below.shape[1] and above.shape[1]):
            continue
        wins, losses = _share_below(below, above), 1 - _share_below(above, below)
        auc = wins.mean(1, keepdim=True)
        share = auc.expand(-1, len(y)).clone()
        share[:, positive] += (wins - auc) * (len(y) / above.shape[1])
        share[:, negative] += (losses - auc) * (len(y) / below.shape[1])
        found.append(auc[:, 0])
        shares.append(share)
    if not found:
        raise BadInput("no task of this part has both classes: no AUC (take another split or more rows)")
    sound = scores.isfinite().flatten(1).all(1)
    auc, share = torch.stack(found).mean(0), torch.stack(shares).mean(0)
    return torch.where(sound, auc, 0.5), torch.where(sound[:, None], share, 0.5)


def _share_below(others: Any, values: Any) -> Any:
    """Of each value [K, V] the share of the others [K, M] that are below it, half of the equal ones."""
    import torch

    ordered = others.sort(1).values
    rank = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return rank.double() / (2 * others.shape[1])


def probe(state: State, when: str) -> dict[str, list[list[float]]]:
    """What the final numbers do not show, for each hidden layer on the first training rows, as in training
    but without dropout: mean and variance of the activations, and the Euclidean norm of the loss's gradient
    by the layer's weights.
    """
    import torch

    net, x, y = state.net, state.x[:, :PROBED], state.y[:, :PROBED]
    K, kept = len(state.runs), [b.clone() for _, b in net.named_buffers()]
    net.train()  # batch statistics, as a step would see them
    weights = {
        name: p
        for name, p in net.named_parameters()
        if name.startswith("linears.") and name.endswith("weight")
    }
    seen: list[Any] = []
    logits = state.logits(x, seen)  # [K, B, C], L of [K, B, H]
    loss = losses(logits, y[state.who])
    grads = torch.autograd.grad(loss.sum(), list(weights.values()), allow_unused=True)
    with torch.no_grad():
        for (_, b), old in zip(net.named_buffers(), kept, strict=True):
            b.copy_(old)  # looking must not move the averages
        mean = [h.double().mean((1, 2)) for h in seen]
        var = [h.double().var((1, 2), correction=0) for h in seen]
        norm = [g.detach().double().reshape(K, -1).norm(dim=1) for g in grads if g is not None]
    table = {"act_mean": mean, "act_var": var, "grad_norm": norm}
    return {f"{key}_{when}": torch.stack(rows, 1).tolist() for key, rows in table.items()}


SELECT = "val_smoothed"  # the epoch of its minimum is the one whose test error counts


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics from its curves (one value an epoch; by layer where the name says so)."""
    val, test = curves[SELECT], curves["test_error"]
    chosen = val.index(min(val))
    found = {
        "val_error": val[chosen],
        "test_error": test[chosen],
        "test_error_last": test[-1],
        "test_error_best": min(test),
        "epoch_best_val": chosen + 1,
        "val_error_last": val[-1],
        "train_loss_last": curves["train_loss"][-1],
    }
    for key in ("act_mean", "act_var", "grad_norm"):
        for when in ("start", "end"):
            layers = curves.get(f"{key}_{when}", [])
            if layers:
                found |= {f"{key}_first_{when}": layers[0], f"{key}_last_{when}": layers[-1]}
    return found
