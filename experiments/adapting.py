"""What Table 10 does with a trained source network: its methods on a target, each without a target label, and
how far apart the domains are inside it, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from data.batches import take
from experiments import transfer
from norms.adabn import adapted as with_statistics_of  # by module, so that the code hash sees it

T = TypeVar("T")
Moments: TypeAlias = list[tuple[Tensor, Tensor]]  # mean and variance [C] of each layer

PIECE = 200  # pictures at a time
AT_ONCE = 3 * 2**30  # bytes of one layer's input for which a target goes through in a single pass
SHOWN = 150  # rows of each domain in the picture of features


def batches(x: Tensor) -> list[Tensor]:
    return [take(x, index) for index in torch.arange(len(x), device=x.device).split(PIECE)]


@torch.no_grad()
def of_all(call: Any, x: Tensor) -> Tensor:
    """call(batch) of all of x; the network is in evaluation mode."""
    return torch.cat([call(batch) for batch in batches(x)])


def error(net: Any, x: Tensor, y: Tensor) -> float:
    return 100 * wrong_by_logits(of_all(net, x), y).double().mean().item()


def wrong_by_logits(logits: Tensor, y: Tensor) -> Tensor:
    """A prediction with a value that is not finite is wrong."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def wrong_ones(seen: Seen) -> list[Tensor]:
    """Which target pictures each member gets wrong, bool [n] each. Labels of the target only score."""
    labels = [data.y_test for data in seen.state.datasets]
    return [wrong_by(told(seen, k), y) for k, y in enumerate(labels)]


def wrong_by(found: Tensor | None, y: Tensor) -> Tensor:
    """Of classes [n] or logits [n, C]; of a network that diverged, nothing it says is right."""
    if found is None:
        return torch.ones_like(y, dtype=torch.bool)
    return wrong_by_logits(found, y) if found.ndim == 2 else found.to(y) != y


def told(seen: Seen, k: int) -> Tensor | None:
    """What the method of member k says of its target: logits, or the classes of the SVM. None where that
    network diverged.
    """
    run, net = seen.state.runs[k], seen.state.model
    try:
        of_target = seen.target(k, adapted=run.method.startswith("adabn"))
        if run.method in ("source", "adabn", "deep_coral", "dann"):
            with torch.no_grad():
                logits: Tensor = net.head(of_target.scored)
            return logits
        if run.method.endswith("_svm"):
            return torch.from_numpy(seen.svm(k, standardised=False)(in_numpy(of_target.scored)))
        if run.method.endswith("_zscore"):
            of_domain = map(in_numpy, (of_target.features, of_target.features, of_target.scored))
            return torch.from_numpy(seen.svm(k, standardised=True)(transfer.standardised(*of_domain)[2]))
        return aligned(run, seen.source(k).features, seen.state.datasets[k].y_train, of_target)
    except transfer.Unusable:
        return None


def aligned(run: Any, source: Tensor, labels: Tensor, of_target: Target) -> Tensor:
    """Classes of the scored target rows, by an SVM on source features that are aligned with those of the rows
    that statistics are taken of (all, unless their number is limited).
    """
    method = run.method.removeprefix("adabn_")
    options = {} if method == "coral" else {"dims": run.dims}
    parts = transfer.standardised(*map(in_numpy, (source, of_target.features, of_target.scored)))
    x, target = transfer.ALIGN[method](*parts, **options)
    return torch.from_numpy(transfer.classified(x, in_numpy(labels), target))


def in_numpy(x: Tensor) -> Any:
    return x.cpu().numpy()


class Source(NamedTuple):
    features: Tensor  # of all training rows
    layers: Moments


class Target(NamedTuple):
    features: Tensor  # of the rows that statistics are taken of
    scored: Tensor  # of those to be scored
    layers: Moments  # over the former


class Seen:
    """What the trained network makes of each domain, computed once for all members that want it."""

    def __init__(self, state: Any) -> None:
        state.net.eval()
        self.state, self.known = state, dict[Any, Any]()

    def source(self, k: int) -> Source:
        x = self.state.datasets[k].x_train
        return self.once(("source", id(x)), lambda: Source(*outputs(self.state.model, x)))

    def svm(self, k: int, standardised: bool) -> transfer.Classifier:
        """Fitted to the source features as they are, or each with mean 0 and variance 1."""
        data = self.state.datasets[k]

        def fit() -> transfer.Classifier:
            x = in_numpy(self.source(k).features)
            x = transfer.standardised(x, x, x)[0] if standardised else x
            return transfer.fitted(x, in_numpy(data.y_train))

        return self.once(("svm", id(data.x_train), standardised), fit)

    def target(self, k: int, adapted: bool) -> Target:
        """With the statistics of the source or, adapted, those of the rows that member k may see."""
        net, data = self.state.model, self.state.datasets[k]

        def look() -> Target:
            rows = seen_by(self.state, k)
            with target_statistics(net, rows) if adapted else nullcontext():
                features, layers = outputs(net, rows)
                same = rows.shape == data.x_test.shape and torch.equal(rows, data.x_test)
                return Target(features, features if same else of_all(net.features, data.x_test), layers)

        return self.once(("target", id(data), self.state.runs[k].images, adapted), look)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self.known:
            self.known[key] = make()
        found: T = self.known[key]
        return found


def seen_by(state: Any, k: int) -> Tensor:
    """The target rows that member k takes statistics of: all, or as many as it may, drawn by the seed; those
    of a larger number have those of a smaller one among them.
    """
    run, x = state.runs[k], state.datasets[k].x_target
    if run.images is None:
        return x
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(run.seed))[: run.images]
    return x[drawn.to(x.device)]


@contextmanager
def target_statistics(net: Any, x: Tensor) -> Iterator[None]:
    """AdaBN with the target rows x inside the block. Unusable where the statistics are not finite."""
    if not all(value.isfinite().all() for value in net.state_dict().values()):
        raise transfer.Unusable("the network's weights are not finite")
    try:
        with with_statistics_of(net, batches(x), max_bytes=AT_ONCE):
            yield
    except ValueError as e:
        if "finite" in str(e):
            raise transfer.Unusable(str(e)) from e
        raise


# ---- how far apart the domains are ------------------------------------------------------------------------


def outputs(net: Any, x: Tensor) -> tuple[Tensor, Moments]:
    """Features of all of x [n, D], and mean and variance per channel of what every layer of batch
    normalisation gives on the way, after the ReLU that follows it. Before it they would say little: AdaBN
    makes those of both domains equal.
    """
    layers = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    sums = [torch.zeros(3, m.num_features, dtype=torch.float64, device=x.device) for m in layers]

    def note(total: Tensor) -> Any:
        def hook(module: Any, args: Any, y: Tensor) -> None:
            y = y.clamp(min=0)
            places = [0, *range(2, y.ndim)]
            total[0] += y.numel() // y.shape[1]
            total[1] += y.sum(places, dtype=torch.float64)
            total[2] += y.square().sum(places, dtype=torch.float64)

        return hook

    handles = [m.register_forward_hook(note(s)) for m, s in zip(layers, sums, strict=True)]
    try:
        features = of_all(net.features, x)
    finally:
        for handle in handles:
            handle.remove()
    moments = [(total / n, (square / n - (total / n).square()).clamp(min=0)) for n, total, square in sums]
    return features, moments


def divergence(one: Moments, other: Moments) -> list[float]:
    """Symmetric KL between the domains in each layer, as transfer.symmetric_kl has it."""
    pairs = zip(one, other, strict=True)
    return [transfer.kl_of_moments(m.cpu(), v.cpu(), n.cpu(), w.cpu()) for (m, v), (n, w) in pairs]


def pictured(seen: Seen, k: int) -> dict[str, Any]:
    """For member k, if it is AdaBN with all of the target: divergence by layer before and after, and both
    domains' features in one plane, before and after (x of the source's rows, y of them, x and y of the
    target's, one after the other). {} for others, for given features, which no ReLU follows, and for a
    network that diverged.
    """
    run = seen.state.runs[k]
    if run.method != "adabn" or run.images is not None or run.model.name == "features":
        return {}
    found: dict[str, Any] = {}
    try:
        source, before, after = seen.source(k), seen.target(k, adapted=False), seen.target(k, adapted=True)
        for when, target in (("before", before), ("after", after)):
            found[f"divergence_{when}"] = divergence(source.layers, target.layers)
        shown = (in_numpy(part.features[:SHOWN]) for part in (source, before, after))
        of_source, *of_target = transfer.plane(*shown)
        for when, part in zip(("before", "after"), of_target, strict=True):
            found[f"plane_{when}"] = [round(float(v), 4) for p in (of_source, part) for v in p.T.ravel()]
        found["plane_rows"] = [len(of_source), len(of_target[0])]
    except transfer.Unusable:
        return {}
    return found
