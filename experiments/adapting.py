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


def wrong_ones(state: Any, k: int) -> Tensor:
    """Which target pictures the method of member k gets wrong, bool [n]. Labels of the target only score."""
    run, data, net = state.runs[k], state.datasets[k], state.model
    net.eval()
    try:
        if run.method in ("source", "deep_coral", "dann"):
            return wrong_by_logits(of_all(net, data.x_test), data.y_test)
        if run.method == "adabn":
            with target_statistics(net, seen_by(state, k)):
                return wrong_by_logits(of_all(net, data.x_test), data.y_test)
        source = of_all(net.features, data.x_train)
        rows = seen_by(state, k)
        with target_statistics(net, rows) if run.method.startswith("adabn") else nullcontext():
            seen, scored = of_all(net.features, rows), of_all(net.features, data.x_test)
        found = predicted(run, source, data.y_train, seen, scored)
    except transfer.Unusable:  # a network that diverged: nothing it says is right
        return torch.ones_like(data.y_test, dtype=torch.bool)
    return found.to(data.y_test) != data.y_test


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
