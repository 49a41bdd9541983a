"""Statistics of batch normalisation taken anew: AdaBN (Li et al., arXiv 1603.04779), and the re-estimation of
the variance after training with dropout (Hendrycks & Gimpel, arXiv 1607.02488).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

Saved = list[tuple[_BatchNorm, Tensor, Tensor]]  # layer, running mean, running variance
PART = 2**20  # values whose deviations are held at a time
ROW = 2**14  # of which float32 adds the squares, before float64 does
UNEVEN = "the forward pass calls other layers, or in another order, for other data"


def adapt_batch_statistics(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    mean: bool = True,
    sequential: bool = True,
    max_bytes: int = 2**28,
) -> None:
    r"""Adaptive batch normalisation (AdaBN; Li et al., arXiv 1603.04779): replaces running_mean and
    running_var of every batch normalisation layer of `model`, in place, by those of the target data.

    .. math:: y = \gamma \, \frac{x - \mu^t}{\sqrt{(\sigma^t)^2 + \epsilon}} + \beta

    with mean and variance of each layer's input over all of the target domain; weights, gamma and beta stay.
    Nothing is trained and labels are not looked at. If the target data are the test images, the setting is
    transductive: say so.

    What the input of a layer is depends on how the layers before it normalise meanwhile:

    ``sequential=True`` (default)
        With the target statistics themselves, so that in the adapted model every layer does what the formula
        says. The result does not depend, up to rounding, on the order of the data nor on how they are cut
        into batches; batches may be of one example. Where the target set fits (see `max_bytes`), it goes
        through as one batch, in one pass. Otherwise each of the K layers takes a pass of its own that ends at
        the layer, together the cost of about K/2 evaluation passes: the loader must then give the same data
        each time, so no iterator, no random augmentation, and no ``drop_last`` with shuffling.
    ``sequential=False``
        With the statistics of the batch at hand, as in training: always one pass, but an approximation that
        depends on the batches (large, shuffled ones are best). The paper's online algorithm can be read so.
        Public ports, which run the model in training mode, do this at best; on top of it some keep an average
        with momentum, which weighs the last batches most and retains some of the statistics of before.

    There is no third way, in which the earlier layers keep the source statistics: that passes the shift of
    the domain on to every layer, to be corrected once in each. If the target is the source times 2, the first
    layer corrects it, and the second would correct it again.

    Batches are pooled by the exact parallel update (count n, mean, sum of squared deviations M2, in float64):
    with :math:`d = \mu_B - \mu`, :math:`M2 \mathrel{+}= M2_B + d^2 n n_B / (n + n_B)` and
    :math:`\mu \mathrel{+}= d \, n_B / (n + n_B)`. (The paper prints :math:`d \, n_B / n`: not exact.) As
    in nn.BatchNorm, running_var becomes the unbiased variance, over n - 1. num_batches_tracked stays.

    The model runs in evaluation mode (no dropout), without gradient and, if compiled, as written. Afterwards
    every submodule is in the mode it was in; after an exception the statistics, too, are what they were.
    Adapted are nn.BatchNorm1d/2d/3d, nn.SyncBatchNorm and their subclasses if they track statistics and the
    forward pass calls them; of a `DomainSpecificBatchNorm1d` it is the active domain. In distributed
    training, each process adapts to its own data.

    With ``mean=False`` only the variances are replaced. Given the *training* set, this is the re-estimation
    after training with dropout (Hendrycks & Gimpel, arXiv 1607.02488): without dropout the variances are
    smaller than those of training, while the means are the same. (The paper's pass is ``sequential=False``.)

    Args:
        model: with layers of batch normalisation; called as ``model(x)``.
        loader: gives batches x [N, ...] or tuples that begin with x; they are moved to the model's device.
        mean: replace the means as well as the variances.
        sequential: see above.
        max_bytes: the target set goes through as one batch if no input of the model or of a layer then takes
            more than this; the memory in use at the peak is a few times as much. 0: always layer by layer.
            (glibc maps blocks above 32 MB anew each time, which costs more than the statistics do: with
            MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ raised in the environment, one batch takes no
            longer than small ones.)

    Raises:
        TypeError: the loader is a tensor, or nothing to iterate over; batches are not tensors or tuples that
            begin with one.
        ValueError: no layer to adapt; a layer that keeps averages of another kind (batch renormalisation and
            others of this package); no data; fewer than two values per channel (per batch, if not
            `sequential`); statistics that are not finite; a loader that is an iterator where more than one
            pass is needed, or that gives another number of examples on another pass; if `sequential`, a layer
            that is used twice in a forward pass (its statistics could depend on themselves), or layers that
            are called for some of the data only.
    """
    if isinstance(loader, Tensor) or not isinstance(loader, Iterable):
        kind = type(loader).__name__
        raise TypeError(f"expected a list of batches or a DataLoader, got {kind}: [x] is a list of one batch")
    saved = _save(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad(), _not_compiled():
            _adapt(model, loader, saved, mean, sequential, max_bytes)
    except BaseException:
        _restore(saved)
        raise
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def adapted(model: nn.Module, loader: Iterable[Any], **options: Any) -> Iterator[nn.Module]:
    """The model with the statistics of `loader` inside the ``with`` block, with those of before after it.

    ::

        with adapted(model, target_loader):
            accuracy = evaluate(model)

    Options and errors are those of `adapt_batch_statistics`.
    """
    saved = _save(model)
    adapt_batch_statistics(model, loader, **options)
    try:
        yield model
    finally:
        _restore(saved)


def _buffers(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, var = layer.running_mean, layer.running_var
    assert mean is not None and var is not None
    return mean, var


def _clones(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, var = _buffers(layer)
    return mean.clone(), var.clone()


def _save(model: nn.Module) -> Saved:
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if any(is_lazy(_buffers(layer)[0]) for layer in layers):
        raise ValueError("the model has lazy layers: call it once before its statistics are adapted")
    others = [type(m).__name__ for m in model.modules() if _keeps_other_averages(m)]
    if others:
        raise ValueError(
            f"the model has {others[0]}, which keeps averages that cannot be adapted: convert it to 'batch',"
            " and train it so"
        )
    if not layers:
        raise ValueError("the model has no batch normalisation layer with running statistics")
    return [(layer, *_clones(layer)) for layer in layers]


def _keeps_other_averages(module: nn.Module) -> bool:
    """Batch renormalisation and the like. Instance normalisation takes its own of each example."""
    ours = not isinstance(module, _BatchNorm | nn.modules.instancenorm._InstanceNorm)
    return ours and isinstance(module._buffers.get("running_mean"), Tensor)


@contextmanager
def _not_compiled() -> Iterator[None]:
    """Runs compiled models as they are written: what torch.compile made before does not look for hooks."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _restore(saved: Saved) -> None:
    with torch.no_grad():
        for layer, *values in saved:
            for buffer, value in zip(_buffers(layer), values, strict=True):
                buffer.copy_(value)


class _Pooled:
    """Count, mean and sum of squared deviations per channel, in float64, of the batches that were added."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, x: Tensor) -> None:
        """Take in x [N, C, ...]."""
        if x.numel() == 0:
            return
        if x.stride(1) == 1 and x.shape[1] > 1:  # channels last: column by column of [values, C]
            columns = x.movedim(1, -1).flatten(0, -2)
            for part in columns.split(max(1, PART // (4 * x.shape[1]))):
                mean = _wide(part).mean(0)
                square = (part - mean).square_().sum(0)
                self._merge(len(part), _double(mean), _double(square))
            return
        # Row by row (the positions of a channel in an example), which vectorises: on a CPU it takes a quarter
        # of the time of batch_norm's own kernel or less. In parts, so that the deviations stay small.
        rows = x.flatten(2) if x.dim() > 2 else x.t()[None]
        size = max(1, PART // (rows.shape[1] * min(rows.shape[2], ROW)))
        for part in (part for piece in rows.split(ROW, dim=2) for part in piece.split(size)):
            wide = _wide(part)
            mean = wide.mean(2)
            root = torch.linalg.vector_norm(wide - mean[:, :, None], dim=2)
            mean, square, n = _double(mean), _double(root).square(), part.shape[2]
            centre = mean.mean(0)
            square = (square + n * (mean - centre).square()).sum(0)
            self._merge(n * len(part), centre, square)

    def _merge(self, count: int, mean: Tensor, square: Tensor) -> None:
        if self.count == 0:
            self.count, self.mean, self.square = count, mean, square
            return
        total, delta = self.count + count, mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.square = self.square + square + delta.square() * (self.count * count / total)
        self.count = total

    def merge(self, other: _Pooled) -> None:
        self._merge(other.count, other.mean, other.square)

    def write(self, layer: _BatchNorm, mean: bool = True, correction: int = 1) -> None:
        if self.count < 2:
            raise ValueError("Expected more than 1 value per channel in the target data")
        running_mean, running_var = _buffers(layer)
        running_var.copy_(self.square / (self.count - correction))
        if mean:
            running_mean.copy_(self.mean)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _double(x: Tensor) -> Tensor:
    return x.cpu().double() if x.device.type == "mps" else x.double()  # which has no float64


class _Reached(BaseException):
    """Ends a forward pass at a layer. Not an Exception, which the model might catch."""


@contextmanager
def _observing(layers: Iterable[_BatchNorm], see: Callable[[_BatchNorm, Tensor], None]) -> Iterator[None]:
    """Inside, `see` is given each layer and its input just before its forward pass."""

    def hook(layer: Any, args: Any, kwargs: Any) -> None:
        see(layer, args[0] if args else next(iter(kwargs.values())))

    handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adapt(
    model: nn.Module, loader: Iterable[Any], saved: Saved, mean: bool, sequential: bool, max_bytes: int
) -> None:
    device = next((t.device for t in model.parameters()), saved[0][1].device)

    def inputs() -> Iterator[Tensor]:
        for batch in loader:
            x = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if not isinstance(x, Tensor):
                raise TypeError(f"expected batches x or (x, ...) with a tensor x, got {type(x).__name__}")
            if x.shape[0]:
                yield x.to(device)

    if sequential:
        _sequential(model, loader, inputs, [layer for layer, _, _ in saved], mean, max_bytes)
    else:
        _batchwise(model, inputs(), saved, mean)
    for layer, _, _ in saved:
        if not all(buffer.isfinite().all() for buffer in _buffers(layer)):
            raise ValueError("the statistics of the target data are not finite")


def _sequential(
    model: nn.Module,
    loader: Iterable[Any],
    inputs: Callable[[], Iterator[Tensor]],
    layers: list[_BatchNorm],
    mean: bool,
    max_bytes: int,
) -> None:
    order: list[_BatchNorm] = []  # in which the forward pass calls them
    batches: list[Tensor] = []
    bytes_each = size = 0

    def probe(layer: _BatchNorm, x: Tensor) -> None:
        nonlocal bytes_each
        if layer in order:
            raise ValueError(
                "a layer is used twice in a forward pass: its statistics may depend on themselves"
            )
        order.append(layer)
        bytes_each = max(bytes_each, x.numel() * x.element_size() // len(x))

    for x in inputs():
        if not batches:
            bytes_each = x[0].numel() * x.element_size()
            with _observing(layers, probe):
                # Two, for the sake of layers that normalise with the batch in evaluation, too. Copies, as the
                # model may work in place.
                model(x[:2].clone())
            _check_reached(order)
        batches.append(x)
        size += bytes_each * len(x)
        if size > max_bytes or x.shape[1:] != batches[0].shape[1:]:
            break
    else:
        if not batches:
            raise ValueError("the loader gives no data")

        left = list(order)

        def adapt(layer: _BatchNorm, x: Tensor, left: list[_BatchNorm] = left) -> None:
            if layer not in left:
                raise ValueError(UNEVEN)
            left.remove(layer)
            pooled = _Pooled()
            pooled.add(x)
            pooled.write(layer, mean)

        with _observing(layers, adapt):
            model(torch.cat(batches) if len(batches) > 1 else batches[0])
        if left:
            raise ValueError(UNEVEN)
        return

    batches.clear()
    if isinstance(loader, Iterator):
        raise ValueError(
            "the loader is an iterator, but more than one pass is needed: give a list or DataLoader"
        )
    examples = None
    for layer in order:
        pooled = _Pooled()

        def collect(_: _BatchNorm, x: Tensor, pooled: _Pooled = pooled) -> None:
            pooled.add(x)
            raise _Reached

        seen = 0
        with _observing([layer], collect):
            for x in inputs():
                seen += len(x)
                with suppress(_Reached):
                    model(x)
        if examples not in (None, seen):
            raise ValueError(f"the loader gave {examples} examples on one pass and {seen} on another")
        examples = seen
        pooled.write(layer, mean)


def _batchwise(model: nn.Module, inputs: Iterator[Tensor], saved: Saved, mean: bool) -> None:
    statistics: dict[_BatchNorm, _Pooled] = {}

    def collect(layer: _BatchNorm, x: Tensor) -> None:
        if x.numel() == x.shape[1]:
            size = x.size()  # in torch's words
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
        batch = _Pooled()
        batch.add(x)
        batch.write(layer, correction=0)
        statistics.setdefault(layer, _Pooled()).merge(batch)

    empty = True
    with _observing([layer for layer, _, _ in saved], collect):
        for x in inputs:
            model(x)
            empty = False
    if empty:
        raise ValueError("the loader gives no data")
    _check_reached(statistics)
    for layer, old_mean, _ in saved:
        if layer in statistics:
            _buffers(layer)[0].copy_(old_mean)
            statistics[layer].write(layer, mean)


def _check_reached(layers: Sized) -> None:
    if not len(layers):
        raise ValueError("the forward pass of the model calls none of its batch normalisation layers")
