"""Table 10: adaptive batch normalization (Li, Wang, Shi, Liu & Hou, arXiv 1603.04779) beside other ways to
carry a network from a labelled source domain to an unlabelled target domain.

    y = gamma (x - mu_t) / sigma_t + beta,   mu_t, sigma_t over all target pictures; weights, gamma, beta stay

The survey's table body is missing from the text we have; the rows are those of its source. Most of them are
ways of using *one* trained source network, so that runs which differ in method, target or number of target
pictures alone are one job: the network is trained once and adapted many times. Deep CORAL and DANN train with
the target's pictures, each a network of its own.

From the source: statistics come from all target pictures (transductive), weights of GoogLeNet up to inception
3b kept, of 4 and 5 at a tenth of the rate, the rate falling tenfold every 40 of 100 epochs, batches of one
domain at a time where there are several sources. Ours: SGD with momentum 0.9, GoogLeNet's dropout off
(Inception-BN has none [inferred]), batches of 64, the last epoch, a linear SVM with the cost from
cross-validation for the methods on features, whose source features are a network's with its running
statistics, of all sources together; but for paper, a tenth of the source held out to see what training does.
source_svm and adabn_svm are that SVM on features as they are, source_zscore and adabn_zscore on those of each
domain with mean 0 and variance 1, which CORAL, SA and GFK begin with: what these gain over the latter is
theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from experiments import adapting
from experiments.config import BadInput, Data, Norm, Optimizer

__all__ = ["SELECT", "STACK", "Run", "State", "can_stack", "cell", "check", "summarise", "train"]


@dataclass
class Network:
    name: str  # domain_net | googlenet | features
    width: float  # maps times this (domain_net)
    weights: str | None  # of googlenet: imagenet (torchvision's); null: initial ones


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
    method: str
    images: int | None  # of how many target pictures, drawn by the seed, statistics are taken; null: all
    dims: int  # of the subspaces of sa and gfk, at most; 0 of all other methods
    weight: float  # of the loss of deep_coral and dann
    decay_every: int  # epochs after which the rate falls tenfold; 0: never
    batch_size: int
    epochs: int
    seed: int


# Methods on one source network, and those that train with the target.
CONTROLS = ("source_svm", "source_zscore", "adabn_svm", "adabn_zscore")
ON_NETWORK = ("source", "coral", "sa", "gfk", "adabn", "adabn_coral", *CONTROLS)
WITH_TARGET = ("deep_coral", "dann")
METHODS = (*ON_NETWORK, *WITH_TARGET)
SUBSPACES = ("sa", "gfk")
STACK = ("row", "column", "method", "data.options.target", "images", "dims")
ONE_JOB = True  # members of a job may have targets of different sizes
SELECT = "remaining"  # epochs: the last one counts
LETTERS = {"amazon": "a", "caltech10": "c", "dslr": "d", "webcam": "w"}
OF_DIGITS = {"textured": "a", "colour": "d", "blurred": "w"}  # which digits stand in for which photographs


def check(run: Run) -> Run:
    """The run with its values in one form, or BadInput with one line."""

    def must(ok: bool, key: str, value: Any, wanted: str) -> None:
        if not ok:
            raise BadInput(f"{key}={value}: {wanted}")

    from data import is_domains

    m, o = run.model, run.optimizer
    must(
        is_domains(run.data.name), "data", run.data.name, "this table wants pairs of domains (digit_domains)"
    )
    must(m.name in ("domain_net", "googlenet", "features"), "model", m.name, "choose domain_net or googlenet")
    of_features = run.data.name == "office_features"
    must((m.name == "features") == of_features, "model", m.name, "model=features is for data=office_features")
    must(math.isfinite(m.width) and 0 < m.width <= 8, "model.width", m.width, "a factor above 0, up to 8")
    must(run.method in METHODS, "method", run.method, f"choose one of {', '.join(METHODS)}")
    least = 1 if run.method in SUBSPACES else 0
    must(least <= run.dims <= 10_000, "dims", run.dims, "dimensions of a subspace, from 1")
    own = m.name == "domain_net"
    must(own or m.width == 1, "model.width", m.width, f"model={m.name} has one width; give 1")
    weights_ok = m.weights is None or (m.name == "googlenet" and m.weights == "imagenet")
    must(weights_ok, "model.weights", m.weights, "imagenet, of model=googlenet alone; or null: initial ones")
    must(math.isfinite(run.weight) and run.weight >= 0, "weight", run.weight, "must be 0 or above")
    must(run.decay_every >= 0, "decay_every", run.decay_every, "epochs, or 0: never")
    must(o.name == "SGD", "optimizer", o.name, "this table has SGD with momentum (sgd)")
    must(math.isfinite(o.lr) and o.lr > 0, "optimizer.lr", o.lr, "the learning rate must be above 0")
    must(math.isfinite(o.l2) and o.l2 >= 0, "optimizer.l2", o.l2, "must be 0 or above")
    must(run.batch_size >= 2, "batch_size", run.batch_size, "batch statistics need at least 2")
    must(run.epochs >= 1, "epochs", run.epochs, "must be at least 1")
    must(0 <= run.data.val_fraction < 1, "data.val_fraction", run.data.val_fraction, "from 0 to below 1")
    must(0 <= run.seed < 2**31, "seed", run.seed, "must be a whole number from 0")
    images = run.images
    must(images is None or images >= 1, "images", images, "target pictures, from 1; null: all")
    given = run.method not in ("source", "source_svm", *WITH_TARGET) or images is None
    must(given, "images", images, f"method={run.method} takes no number of target pictures")
    if run.method in ON_NETWORK and run.weight:
        raise BadInput(f"weight={run.weight:g}: method={run.method} has no second loss; give weight=0")
    return run if run.method in SUBSPACES else replace(run, dims=0)


def can_stack(run: Run) -> bool:
    return run.method in ON_NETWORK


def cell(run: Run) -> tuple[str, str]:
    """(row, column): the method, with the number of target pictures where that is limited; source to target
    by letters, aw or ad_w, or by names.
    """
    options = run.data.options
    images, norm = run.images, "" if run.norm.name == "batch" else f"_{run.norm.name}"
    row = run.method + norm + ("" if images is None else f"_{images}")
    sources, target = str(options["source"]).split("+"), str(options["target"])
    letters = OF_DIGITS if run.data.name == "digit_domains" else LETTERS
    if all(name in letters for name in (*sources, target)):
        source, target = "".join(letters[s] for s in sources), letters[target]
        column = source + target if len(sources) == 1 else f"{source}_{target}"
    else:
        column = f"{'+'.join(sources)}_{target}"
    return row, f"{column}_features" if run.model.name == "features" else column


class State:
    """All that training changes: one network, whoever of the members uses it."""

    def __init__(self, runs: Sequence[Run], data: Any, device: Any) -> None:
        import torch

        from experiments.population import Population

        found = data if isinstance(data, list) else [data] * len(runs)
        there: dict[int, Any] = {}  # members of one source share its rows here, as they do on the host
        kept = {id(d): to_device(d, device, there) for d in found}
        self.runs, self.run, self.device = list(runs), runs[0], device
        self.datasets = [kept[id(d)] for d in found]
        self.data = self.datasets[0]
        for run, dataset in zip(self.runs, self.datasets, strict=True):
            ready(run, dataset)
        torch.manual_seed(self.run.seed)
        self.model = built(self.run, self.data).to(device)
        self.net = Population([self.model])
        self.second: Any = domain_head(self.model, device) if self.run.method == "dann" else None
        parts = rates(self.run, self.model)
        if self.second is not None:
            parts.append({"params": list(self.second.parameters()), "weight_decay": 0.0, "factor": 1.0})
        self.optimizer = torch.optim.SGD(parts, lr=self.run.optimizer.lr, **self.run.optimizer.options)
        self.groups = self.domains()
        self.steps_per_epoch = sum(max(1, len(g) // self.run.batch_size) for g in self.groups)
        self.rounds, self.epoch, self.batch = self.run.epochs, 0, 0
        self.loss_sum, self.loss_steps = torch.zeros((), device=device), 0
        self.extras: dict[str, list[Any]] = {}
        torch.manual_seed(self.run.seed)

    def domains(self) -> list[Any]:
        """Rows of each source."""
        import torch

        n, which = len(self.data.y_train), self.data.domain_train
        if which is None:
            return [torch.arange(n)]
        return [(which == k).nonzero().flatten().cpu() for k in which.unique().tolist()]

    def order(self) -> list[Any]:
        """Rows of this epoch's batches, each of one source; of a source smaller than a batch all."""
        from experiments import measure

        seed, B, found = self.run.seed, self.run.batch_size, []
        for k, rows in enumerate(self.groups):
            shuffled = rows[measure.shuffle(len(rows), seed * 31 + k, self.epoch)]
            found += [shuffled[i : i + B] for i in range(0, max(1, len(rows) // B) * B, B)]
        turns = measure.shuffle(len(found), seed + 7, self.epoch)
        return [found[i] for i in turns.tolist()] if len(self.groups) > 1 else found

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "second": None if self.second is None else self.second.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "extras": self.extras,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        if self.second is not None:
            self.second.load_state_dict(state["second"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.extras = state["extras"]


# ---- the source network -----------------------------------------------------------------------------------


def to_device(data: Any, device: Any, there: dict[int, Any]) -> Any:
    """The data set with its tensors on the device, each moved once: `there` has those that are, by id of what
    they were.
    """
    import torch

    def moved(x: Any) -> Any:
        if isinstance(x, torch.Tensor) and id(x) not in there:
            there[id(x)] = x.to(device)
        return there.get(id(x), x)

    return replace(data, **{f.name: moved(getattr(data, f.name)) for f in fields(data)})


def ready(run: Run, data: Any) -> None:
    """BadInput, one line, where a method cannot do with this network or this target."""
    adapts = run.method.startswith("adabn")
    if adapts and not has_statistics(run):
        raise BadInput(
            f"method={run.method}, norm={run.norm.name}: a network without batch normalization has no"
            " statistics to adapt; use norm=batch or another method"
        )
    covariance = run.method in ("coral", "adabn_coral", "sa", "gfk", "deep_coral")
    covariance = covariance or run.method.endswith("_zscore")
    n = len(data.x_target)
    if run.images is not None:
        if run.images > n:
            raise BadInput(f"images={run.images}: {data.name} has {n} target rows")
        n = run.images
    least = 2 if run.model.name == "features" or covariance else 1
    if (adapts or covariance) and n < least:
        raise BadInput(f"method={run.method}: {data.name} has {n} target rows; statistics need {least}")
    if len(data.y_train) < 2:
        raise BadInput(f"{data.name}: {len(data.y_train)} source row to train on; at least 2 are needed")


def has_statistics(run: Run) -> bool:
    """Whether the network's normaliser is one of torch's batch normalisation, which AdaBN is about."""
    from torch.nn.modules.batchnorm import _BatchNorm

    import norms

    layer = norms.build(run.norm.name, 2, dim=2, **run.norm.options)
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


def built(run: Run, data: Any) -> Any:
    """The network with its input layer, or BadInput, one line, where it does not fit the data."""
    import torch
    from torch import nn

    import norms
    from experiments.models import domain_net as nets
    from experiments.models.inputs import Standardise

    def norm(channels: int, dim: int) -> Any:
        return norms.build(run.norm.name, channels, dim=dim, **run.norm.options)

    m, shape, classes = run.model, data.x_train.shape[1:], len(data.classes)
    if m.name == "googlenet" and (run.norm.name != "batch" or run.norm.options):
        raise BadInput(f"norm={run.norm.name}: googlenet has batch normalization of its own; give norm=batch")
    try:
        if m.name == "features":
            return nets.on_features(shape, classes, norm)
        if m.name == "googlenet":
            net = nets.googlenet(classes, m.weights)
            net.body = nn.Sequential(nets.HalfScale(), net.body)
            return net
        net = nets.domain_net(shape, classes, norm, m.width)
    except ValueError as e:
        raise BadInput(f"model={m.name}: {e}") from e
    net.body = nn.Sequential(Standardise.of(data.x_train), net.body)
    return net.to(memory_format=torch.channels_last)  # convolutions of few maps take half the time


def domain_head(net: Any, device: Any) -> Any:
    """DANN's judge of a feature's domain, behind a layer that turns the gradient round."""
    from torch import nn

    size = net.head.in_features
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1)).to(device)


def rates(run: Run, net: Any) -> list[dict[str, Any]]:
    """Groups of parameters with their factor of the learning rate; l2 sum w^2 is a gradient of 2 l2 w, for
    weights of linear and convolutional layers alone.
    """
    from torch import nn

    from experiments.models.domain_net import groups

    parts: list[tuple[list[Any], float]] = [(list(net.parameters()), 1.0)]
    if run.model.name == "googlenet":
        kept, tenth, new = groups(net)
        for p in kept:
            p.requires_grad_(False)
        parts = [(tenth, 0.1), (new, 1.0)]
    weights = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    found = []
    for params, factor in parts:
        for of, decay in ((True, 2 * run.optimizer.l2), (False, 0.0)):
            chosen = [p for p in params if (id(p) in weights) == of]
            found.append({"params": chosen, "weight_decay": decay, "factor": factor})
    return found


def train(state: State) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Train the source network from where `state` is to the end; yields (step, None) now and then and (step,
    metrics) after every epoch, a value for each member. The last epoch's have the score of each member's
    method on its target.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from data.batches import take

    run, data, K = state.run, state.data, len(state.runs)
    while state.epoch < run.epochs:
        order = state.order()
        for rows in order[state.batch :]:
            training(state)
            step = state.epoch * state.steps_per_epoch + state.batch
            for group in state.optimizer.param_groups:
                falls = state.epoch // run.decay_every if run.decay_every else 0
                group["lr"] = run.optimizer.lr * group["factor"] * 0.1**falls
            index = rows.to(state.device)
            x, n = take(data.x_train, index), len(index)
            if run.method in WITH_TARGET:
                x = torch.cat([x, drawn(state, n, step)])
            features = state.model.features(x)
            logits = state.model.head(features)
            loss = cross_entropy(logits[:n], data.y_train[index])
            if run.method in WITH_TARGET:
                loss = loss + second_loss(state, features, logits, n, step)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.loss_sum += loss.detach()
            state.loss_steps += 1
            state.batch += 1
            if state.batch % 20 == 0 and state.batch < state.steps_per_epoch:
                yield step + 1, None
        state.epoch, state.batch = state.epoch + 1, 0
        left = run.epochs - state.epoch
        train_loss = (state.loss_sum / state.loss_steps).item()
        state.loss_sum, state.loss_steps = state.loss_sum * 0, 0
        state.net.eval()
        metrics: dict[str, Any] = {
            "step": [state.epoch * state.steps_per_epoch] * K,
            "train_loss": [train_loss] * K,
            "val_error": [adapting.error(state.model, data.x_val, data.y_val)] * K,
            "remaining": [left] * K,
            "chance": [100 / len(data.classes)] * K,  # accuracy of a guess, as test_accuracy is
            "test_accuracy": [math.nan] * K,
        }
        if left == 0:
            seen = adapting.Seen(state)
            wrong = adapting.wrong_ones(seen)
            metrics["wrong"] = wrong
            metrics["test_accuracy"] = [100 - 100 * w.double().mean().item() for w in wrong]
            for k in range(K):
                for name, values in adapting.pictured(seen, k).items():
                    state.extras.setdefault(name, [[] for _ in range(K)])[k] = values
        yield metrics["step"][0], metrics


def training(state: State) -> None:
    """Training mode, in which the layers that the source keeps go on with the statistics they have."""
    state.net.train()
    if state.run.model.name == "googlenet":
        for name, module in state.model.body[1].named_modules():
            if not name.startswith(("inception4", "inception5")):
                module.training = False


def drawn(state: State, n: int, step: int) -> Any:
    """As many target pictures as the batch has of the source (two at least, at most all that there are),
    drawn anew for each step. Both domains go through the network as one batch, so that a normaliser has the
    statistics of both together in training and in evaluation.
    """
    import torch

    from data.batches import take

    target = state.data.x_target
    generator = torch.Generator().manual_seed((state.run.seed * 1_000_003 + step) * 2 + 1)
    index = torch.randint(len(target), (max(2, min(n, len(target))),), generator=generator)
    return take(target, index.to(state.device))


def second_loss(state: State, features: Any, logits: Any, n: int, step: int) -> Any:
    """Of a batch whose first n rows are the source's: Deep CORAL's loss (Sun & Saenko, arXiv 1607.01719), on
    the last layer's outputs as there [memory], or DANN's (Ganin & Lempitsky, ICML 2015), on the features.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from experiments.models.domain_net import Reversed
    from norms.coral import coral_loss  # by module, so that the code hash sees it

    run = state.run
    if run.method == "deep_coral":
        return run.weight * coral_loss(logits[:n], logits[n:])
    done = step / (run.epochs * state.steps_per_epoch)
    strength = 2 / (1 + math.exp(-10 * done)) - 1  # the source's schedule of lambda
    both = Reversed.apply(features, run.weight * strength)
    of_source = (torch.arange(len(features), device=state.device) < n).float()
    return binary_cross_entropy_with_logits(state.second(both).squeeze(1), of_source)


def summarise(curves: dict[str, list[float]]) -> dict[str, float]:
    """The record's metrics: of the last epoch. Shallow and deep: the first and the last layer of batch
    normalisation.
    """
    found = {name: curves[name][-1] for name in ("test_accuracy", "val_error", "chance")}
    for when in ("before", "after"):
        if told := curves.get(f"divergence_{when}"):
            found |= {f"shallow_{when}": told[0], f"deep_{when}": told[-1]}
    return {**found, "steps": curves["step"][-1], "train_loss_last": curves["train_loss"][-1]}
