"""What Table 10 does with a trained source network: its methods on a target, each without a target label, and
how far apart the domains are inside it, before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

import norms
from data.batches import take
from experiments import transfer

PIECE = 200  # pictures at a time
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


def wrong_ones(state: Any) -> list[Tensor]:
    """Which target pictures each member gets wrong, bool [n] each. Labels of the target only score."""
    state.net.eval()
    seen = Seen(state)
    labels = [data.y_test for data in state.datasets]
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
    run, data, net = seen.state.runs[k], seen.state.datasets[k], seen.state.model
    try:
        statistics, scored = seen.target(k, adapted=run.method.startswith("adabn"))
        if run.method in ("source", "adabn", "deep_coral", "dann"):
            with torch.no_grad():
                logits: Tensor = net.head(scored)
            return logits
        return predicted(run, seen.source(k), data.y_train, statistics, scored)
    except transfer.Unusable:
        return None


class Seen:
    """Features of the trained network, each computed once for all members that want them."""

    def __init__(self, state: Any) -> None:
        self.state, self.known = state, dict[Any, Any]()

    def source(self, k: int) -> Tensor:
        x = self.state.datasets[k].x_train
        if id(x) not in self.known:
            self.known[id(x)] = of_all(self.state.model.features, x)
        features: Tensor = self.known[id(x)]
        return features

    def target(self, k: int, adapted: bool) -> tuple[Tensor, Tensor]:
        """(of the rows that member k takes statistics of, of those to be scored)."""
        data, net = self.state.datasets[k], self.state.model
        key = id(data), self.state.runs[k].images, adapted
        if key not in self.known:
            rows = seen_by(self.state, k)
            with target_statistics(net, rows) if adapted else nullcontext():
                scored = of_all(net.features, data.x_test)
                same = rows.shape == data.x_test.shape and torch.equal(rows, data.x_test)
                self.known[key] = (scored if same else of_all(net.features, rows)), scored
        found: tuple[Tensor, Tensor] = self.known[key]
        return found


def predicted(run: Any, source: Tensor, labels: Tensor, seen: Tensor, scored: Tensor) -> Tensor:
    """Classes of the target rows `scored`, by an SVM on source features that are aligned with the target rows
    `seen` (all of them, unless their number is limited), or on the features as they are.
    """
    a, b, c = (x.double().cpu().numpy() for x in (source, seen, scored))
    if run.method.endswith("_svm"):
        x, target = a, c
    else:
        method = run.method.removeprefix("adabn_")
        options = {} if method == "coral" else {"dims": run.dims}
        x, target = transfer.ALIGN[method](*transfer.standardised(a, b, c), **options)
    return torch.from_numpy(transfer.classified(x, labels.cpu().numpy(), target))


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
        with norms.adapted(net, batches(x)):
            yield
    except ValueError as e:
        if "finite" in str(e):
            raise transfer.Unusable(str(e)) from e
        raise


# ---- how far apart the domains are ------------------------------------------------------------------------


def outputs(net: Any, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance per channel of what every layer of batch normalisation gives, after the ReLU that
    follows it, over all of x. Before it they would say little: AdaBN makes those of both domains equal.
    """
    layers = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    sums = [torch.zeros(3, m.num_features, dtype=torch.float64, device=x.device) for m in layers]

    def note(total: Tensor) -> Any:
        def hook(module: Any, args: Any, y: Tensor) -> None:
            flat = y.double().clamp(min=0).transpose(0, 1).flatten(1)
            total[0] += flat.shape[1]
            total[1] += flat.sum(1)
            total[2] += flat.square().sum(1)

        return hook

    handles = [m.register_forward_hook(note(s)) for m, s in zip(layers, sums, strict=True)]
    try:
        of_all(net.features, x)
    finally:
        for handle in handles:
            handle.remove()
    return [(total / n, (square / n - (total / n).square()).clamp(min=0)) for n, total, square in sums]


def divergence(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Symmetric KL between the domains in each layer, as transfer.symmetric_kl has it."""
    pairs = zip(one, other, strict=True)
    return [transfer.kl_of_moments(m.cpu(), v.cpu(), n.cpu(), w.cpu()) for (m, v), (n, w) in pairs]


def pictured(state: Any, k: int) -> dict[str, Any]:
    """For member k, if it is AdaBN with all of the target: divergence by layer before and after, and both
    domains' features in one plane, before and after (x of the source's rows, y of them, x and y of the
    target's, one after the other). {} for others, and for a network that diverged.
    """
    run, data, net = state.runs[k], state.datasets[k], state.model
    if run.method != "adabn" or run.images is not None:
        return {}
    found: dict[str, Any] = {}
    try:
        source = outputs(net, data.x_train)
        shown = [of_all(net.features, data.x_train[:SHOWN])]
        for when, block in (("before", nullcontext()), ("after", target_statistics(net, data.x_target))):
            with block:
                found[f"divergence_{when}"] = divergence(source, outputs(net, data.x_target))
                shown.append(of_all(net.features, data.x_target[:SHOWN]))
        of_source, *of_target = transfer.plane(*(x.double().cpu().numpy() for x in shown))
        for when, part in zip(("before", "after"), of_target, strict=True):
            found[f"plane_{when}"] = [round(float(v), 4) for p in (of_source, part) for v in p.T.ravel()]
        found["plane_rows"] = [len(of_source), len(of_target[0])]
    except transfer.Unusable:
        return {}
    return found
