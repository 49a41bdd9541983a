"""AdaBN against statistics written out in numpy and nn.BatchNorm on the whole set; domain-specific layers."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from norms import (
    DomainSpecificBatchNorm1d,
    DomainSpecificBatchNorm2d,
    DomainSpecificBatchNorm3d,
    L1BatchNorm1d,
    adapt_batch_statistics,
    adapted,
    use_domain,
)

F64 = torch.float64
WAYS = {"one batch": {}, "layer by layer": {"max_bytes": 0}}  # both exact


def mlp(dtype=F64, seed=0):
    """Two layers of batch normalisation with dropout between; statistics far from any data."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3)
    ).to(dtype)
    for layer in batch_norms(model):
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
        layer.running_mean.fill_(7.0), layer.running_var.fill_(11.0)
    return model


def convnet(dtype=F64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Flatten(), nn.Linear(3 * 4 * 3, 3), nn.BatchNorm1d(3),
    ).to(dtype)  # fmt: skip


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def statistics(model):
    return [s.clone() for layer in batch_norms(model) for s in (layer.running_mean, layer.running_var)]


def target(n=37, shape=(5,), seed=1, dtype=F64):
    torch.manual_seed(seed)
    return 3 + 2 * torch.randn(n, *shape, dtype=dtype)


def assert_same(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- the statistics ------------------------------------------------------------------------------


def reference(model, x):
    """Of the `mlp`: mean and unbiased variance of each layer's input, the first layer already adapted."""
    expected, h = [], x.numpy()
    for linear, norm in ((model[0], model[1]), (model[4], model[5])):
        h = h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        mean = sum(h) / len(h)
        var = sum((h - mean) ** 2) / (len(h) - 1)
        expected += [mean, var]
        h = (h - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        h = np.tanh(h)
    return expected


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("size", [1, 2, 10, 36, 37])
def test_against_numpy_whatever_the_batches(options, size):
    model, x = mlp(), target()
    others = {k: v.clone() for k, v in model.state_dict().items() if "running" not in k}
    assert adapt_batch_statistics(model, x.split(size), **options) is None
    for found, value in zip(statistics(model), reference(mlp(), x), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in others.items())


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_order_and_size_of_the_batches_do_not_matter(options):
    x, results = target(40, (2, 8, 7)), []
    for batches in (
        [x], x.split(20), x.split(7), x.flip(0).split(3), x.split(1), [x[5:], x[:0], x[:5]],
    ):  # fmt: skip
        model = convnet()
        adapt_batch_statistics(model, batches, **options)
        results.append(statistics(model))
    for result in results[1:]:
        assert_same(result, results[0])


def test_a_layer_that_only_more_examples_reach_is_refused():
    class More(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.b(self.a(x)) if len(x) > 2 else self.a(x)

    with pytest.raises(ValueError, match="calls other layers"):
        adapt_batch_statistics(More(), [torch.randn(8, 2)])


def test_the_room_that_a_layer_takes_counts():
    """Ten times as wide inside as at the input: it does not fit, so the loader may be no iterator."""
    model = nn.Sequential(nn.Linear(2, 20), nn.BatchNorm1d(20))
    x = torch.randn(10, 2)
    adapt_batch_statistics(model, iter(x.split(5)), max_bytes=10 * 20 * 4)
    with pytest.raises(ValueError, match="iterator"):
        adapt_batch_statistics(model, iter(x.split(5)), max_bytes=10 * 20 * 4 - 1)


def test_every_layer_standardises_the_target():
    """With gamma = 1, beta = 0 every layer's output on the target has mean 0 and variance 1."""
    model, x = convnet(), target(40, (2, 8, 7))
    adapt_batch_statistics(model, x.split(8), max_bytes=0)
    outputs = []
    for layer in batch_norms(model):
        layer.register_forward_hook(lambda _, args, y: outputs.append(y.transpose(0, 1).flatten(1)))
    model.eval()(x)
    for y in outputs:
        torch.testing.assert_close(y.mean(1), torch.zeros(len(y), dtype=F64), rtol=0, atol=1e-12)
        # running_var is over n - 1, and eps is 1e-5
        torch.testing.assert_close(y.var(1), torch.ones(len(y), dtype=F64), rtol=1e-3, atol=0)


def test_one_layer_equals_momentum_1_on_the_whole_set():
    """The unbiased variance, as nn.BatchNorm stores it."""
    x = target(30, (3, 4))
    layer, peer = nn.BatchNorm1d(3, dtype=F64), nn.BatchNorm1d(3, momentum=1.0, dtype=F64)
    peer(x)
    for options in (*WAYS.values(), {"sequential": False}):
        adapt_batch_statistics(layer.train(), x.split(7), **options)
        assert_same(statistics(layer), statistics(peer), 1e-13)
        assert not torch.allclose(layer.running_var, x.var((0, 2), correction=0), rtol=1e-4)
        layer.reset_running_stats()


def test_without_sequential_the_batches_own_statistics_are_used():
    """Second layer: the pooled statistics of what the batches, each normalised by itself, send it."""
    model, x = mlp(), target(36)
    adapt_batch_statistics(model, x.split(12), sequential=False)
    trained, inputs = mlp(), []
    trained[3].eval()
    trained[5].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for batch in x.split(12):
        trained[3].p = 0.0
        trained(batch)
    h = torch.cat(inputs)
    assert_same(statistics(model)[2:], [h.mean(0), h.var(0)])
    assert_same(statistics(model)[:2], [torch.from_numpy(v) for v in reference(mlp(), x)[:2]])
    other = mlp()
    adapt_batch_statistics(other, x.split(6), sequential=False)
    assert not torch.allclose(
        statistics(other)[2], statistics(model)[2], rtol=1e-3
    )  # it depends on the batches
    whole = mlp()  # n or n - 1 within the batch is all that is left of the difference for one batch
    adapt_batch_statistics(whole, [x], sequential=False)
    adapt_batch_statistics(other, [x])
    assert_same(statistics(whole), statistics(other), 0.05)


def test_earlier_layers_with_source_statistics_correct_the_shift_again_and_again():
    """Why there is no such option: the target is twice the source, and of the output of layer k no more
    than 2^(1 - k) would be left."""
    model = nn.Sequential(*[nn.BatchNorm1d(2, affine=False, dtype=F64) for _ in range(3)])
    x = target(200, (2,)) - 3
    adapt_batch_statistics(model.eval(), [x])
    seen = [2 * x, model[0](2 * x), model[:2](2 * x)]  # by each layer, while all have source statistics
    wrong = copy.deepcopy(model)
    for layer, inputs in zip(wrong, seen, strict=True):
        layer.running_mean, layer.running_var = inputs.mean(0), inputs.var(0)
    one = torch.ones(2, dtype=F64)
    torch.testing.assert_close(wrong(2 * x).var(0), one / 16, rtol=1e-3, atol=0)
    adapt_batch_statistics(model, (2 * x).split(50), max_bytes=0)
    torch.testing.assert_close(model(2 * x).var(0), one, rtol=1e-3, atol=0)


def channels(x):
    """Mean and variance of each channel of [B, C, H, W]."""
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1)


def test_a_port_that_keeps_a_remainder_of_the_initial_statistics_does_not_standardise():
    """Reset, then training mode at momentum 0.1: of mean 0 and variance 1 stays 0.9 to the number of batches
    (Dassl.pytorch).
    """
    x = target(64, (3, 5, 5)) * torch.tensor([1.0, 10, 20], dtype=F64)[:, None, None]
    layer, port = nn.BatchNorm2d(3, dtype=F64), nn.BatchNorm2d(3, dtype=F64)
    adapt_batch_statistics(layer, x.split(16))
    for batch in x.split(16):
        port(batch)
    mean, var = channels(x)
    torch.testing.assert_close(layer.running_mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.running_var, var, rtol=1e-12, atol=0)
    remainder = 0.9**4
    weights = [0.1 * 0.9**k for k in (3, 2, 1, 0)]
    parts = [channels(batch) for batch in x.split(16)]
    torch.testing.assert_close(
        port.running_mean, sum(w * m for w, (m, _) in zip(weights, parts, strict=True))
    )
    torch.testing.assert_close(
        port.running_var, remainder + sum(w * v for w, (_, v) in zip(weights, parts, strict=True))
    )
    ours, theirs = channels(layer.eval()(x)), channels(port.eval()(x))
    torch.testing.assert_close(ours[0], torch.zeros(3, dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours[1], torch.ones(3, dtype=F64), rtol=1e-4, atol=0)
    assert (theirs[0].abs() > 0.05).any() and ((theirs[1] - 1).abs() > 0.05).any()


def test_a_port_that_sums_over_channels_of_the_output_does_not_standardise():
    """A hook on the layer's *output*, one mean and variance for all channels (adabn-pytorch)."""
    x = target(64, (3, 5, 5)) * torch.tensor([1.0, 10, 20], dtype=F64)[:, None, None]
    layer, port = nn.BatchNorm2d(3, dtype=F64).eval(), nn.BatchNorm2d(3, dtype=F64).eval()
    seen = []
    handle = port.register_forward_hook(lambda module, args, y: seen.append(y.detach()))
    for batch in x.split(16):
        port(batch)
    handle.remove()
    outputs = torch.cat(seen)
    port.running_mean.fill_(outputs.mean().item())
    port.running_var.fill_(outputs.var().item())
    adapt_batch_statistics(layer, x.split(16))
    ours, theirs = channels(layer(x)), channels(port(x))
    torch.testing.assert_close(ours[1], torch.ones(3, dtype=F64), rtol=1e-4, atol=0)
    assert ((theirs[1] - 1).abs() > 0.2).all() and (theirs[0].abs() > 0.05).any()


def test_the_papers_update_is_not_exact():
    """mu += d k / n, as printed, against k / (n + k)."""
    x = target(30, (1,))
    mean, n = x[:10].mean(), 10
    for batch in x[10:].split(10):
        mean, n = mean + (batch.mean() - mean) * len(batch) / n, n + len(batch)
    layer = nn.BatchNorm1d(1, dtype=F64)
    adapt_batch_statistics(layer, x.split(10))
    assert abs(mean - x.mean()) > 1e-3 > 1e-12 > abs(layer.running_mean - x.mean())


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_only_the_variance(options):
    """Hendrycks & Gimpel: dropout off, means as trained."""
    model, x = mlp(), target()
    means = [layer.running_mean.clone() for layer in batch_norms(model)]
    adapt_batch_statistics(model, x.split(10), mean=False, **options)
    assert_same([layer.running_mean for layer in batch_norms(model)], means, 0)
    hidden = model[0](x)
    torch.testing.assert_close(model[1].running_var, hidden.var(0), rtol=1e-12, atol=0)
    h = (hidden - 7) / (hidden.var(0) + 1e-5).sqrt() * model[1].weight + model[1].bias
    torch.testing.assert_close(model[5].running_var, model[4](h.tanh()).var(0), rtol=1e-12, atol=0)


def test_only_the_variance_in_one_pass():
    model, both, x = mlp(), mlp(), target(36)
    adapt_batch_statistics(model, x.split(12), mean=False, sequential=False)
    adapt_batch_statistics(both, x.split(12), sequential=False)
    for found, other in zip(batch_norms(model), batch_norms(both), strict=True):
        assert found.running_mean.tolist() == [7.0] * len(found.running_mean)
        assert torch.equal(found.running_var, other.running_var)


def test_dropout_inflates_the_variance_and_the_re_estimation_takes_that_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 6), nn.BatchNorm1d(6, momentum=None)).double()
    x = target(2000, (20,))
    for batch in x.split(200):
        model(batch)
    before = model[2].running_var.clone()
    adapt_batch_statistics(model, x.split(200), mean=False)
    assert (model[2].running_var < 0.7 * before).all()
    torch.testing.assert_close(model[2].running_var, model[1](x).var(0), rtol=1e-12, atol=0)


def test_float32_pools_as_well_as_float64():
    """Mean 1000, deviation 1: the pooling adds no error to that of the data."""
    x = (target(512, (3, 8, 8)) + 1000).float()
    layer, wide = nn.BatchNorm2d(3), nn.BatchNorm2d(3, dtype=F64)
    adapt_batch_statistics(layer, x.split(32))
    adapt_batch_statistics(wide, x.double().split(32))
    torch.testing.assert_close(layer.running_mean.double(), wide.running_mean, rtol=2e-7, atol=0)
    torch.testing.assert_close(layer.running_var.double(), wide.running_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 1), (6, 3, 4, 5), (6, 3, 2, 3, 2)])
def test_any_rank_memory_format_and_autocast(shape):
    cls = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    x = target(shape[0], shape[1:])
    expected = [x.transpose(0, 1).flatten(1).mean(1), x.transpose(0, 1).flatten(1).var(1)]
    layouts = [x, x.transpose(0, -1).contiguous().transpose(0, -1)]
    if len(shape) == 4:
        layouts.append(x.contiguous(memory_format=torch.channels_last))
    for data in layouts:
        layer = cls(3, dtype=F64)
        adapt_batch_statistics(layer, data.split(4))
        assert_same(statistics(layer), expected, 1e-13)
    layer, low = cls(3), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        adapt_batch_statistics(layer, low.split(4))
    assert layer.running_var.dtype == torch.float32
    rows = low.double().transpose(0, 1).flatten(1)
    assert_same([s.double() for s in statistics(layer)], [rows.mean(1), rows.var(1)], 1e-6)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_float32_sums_of_a_million_values(options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_000_000, 2, generator=generator) + 1
    layer = nn.BatchNorm1d(2)
    adapt_batch_statistics(layer, list(x.split(100_000)), **options)
    assert_same(layer.running_var.double(), x.double().var(0), 2e-6)


def test_a_model_that_works_in_place():
    class Shift(nn.Module):
        def forward(self, x):
            return x.sub_(5)

    x = target() + 5
    model = nn.Sequential(Shift(), nn.BatchNorm1d(5, dtype=F64))
    adapt_batch_statistics(model, [x.clone()])
    assert_same(model[1].running_mean, (x - 5).mean(0))


def test_a_compiled_model():
    """Whatever sizes it was compiled for before."""
    torch.compiler.reset()
    model, x = nn.Sequential(nn.Linear(5, 4, dtype=F64), nn.BatchNorm1d(4, dtype=F64)).eval(), target()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(x), compiled(x[:2])
        adapt_batch_statistics(compiled, [x])
        assert_same(model[1].running_mean, model[0](x).mean(0))


def test_parts_of_a_large_batch(monkeypatch):
    monkeypatch.setattr("norms.adabn.PART", 50)
    x = target(23, (3, 4, 2))
    layer = nn.BatchNorm2d(3, dtype=F64)
    adapt_batch_statistics(layer, [x])
    assert_same(statistics(layer), [x.mean((0, 2, 3)), x.var((0, 2, 3))], 1e-13)


# ---- the loader and the model --------------------------------------------------------------------


class Untouchable:
    """A label that nothing may be asked of."""

    def __getattr__(self, name):
        raise AssertionError(f"label.{name} was touched")


@pytest.mark.parametrize("kind", [tuple, list])
def test_labels_are_not_touched(kind):
    model, plain, x = mlp(), mlp(), target()
    for options in (*WAYS.values(), {"sequential": False}):
        adapt_batch_statistics(
            model, [kind((batch, Untouchable(), None)) for batch in x.split(10)], **options
        )
        adapt_batch_statistics(plain, x.split(10), **options)
        assert_same(statistics(model), statistics(plain), 0)


def test_a_shuffling_data_loader():
    model, expected, x = mlp(), mlp(), target()
    loader = DataLoader(TensorDataset(x, torch.zeros(37)), batch_size=8, shuffle=True)
    for options in WAYS.values():
        adapt_batch_statistics(model, loader, **options)
        adapt_batch_statistics(expected, [x])
        assert_same(statistics(model), statistics(expected))


def test_inputs_of_different_size_go_layer_by_layer():
    model = convnet()[:6]
    a, b = target(8, (2, 8, 7)), target(4, (2, 9, 9), seed=2)
    adapt_batch_statistics(model, [a, b])
    values = torch.cat([model[0](x).transpose(0, 1).flatten(1) for x in (a, b)], 1)
    assert_same(statistics(model)[:2], [values.mean(1), values.var(1)])


def test_what_is_called_before_what_is_found_in_the_forward_pass():
    """Registered in the wrong order."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused, self.first = (nn.BatchNorm1d(2, dtype=F64) for _ in range(3))

        def forward(self, x):
            return self.last(input=self.first(x).square())

    model, x = Backwards(), target(20, (2,))
    adapt_batch_statistics(model, x.split(6), max_bytes=0)
    h = (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()
    assert_same([model.last.running_mean, model.last.running_var], [h.square().mean(0), h.square().var(0)])
    assert model.unused.running_mean.tolist() == [0, 0] and model.unused.running_var.tolist() == [1, 1]


def test_a_pass_ends_at_its_layer():
    model, calls = mlp(), []
    for k in (0, 4):
        model[k].register_forward_hook(lambda *_, k=k: calls.append(k))
    adapt_batch_statistics(model, target(30).split(10), max_bytes=0)
    assert calls == [0, 4] + [0] * 3 + [0, 4] * 3  # the first to learn the order


def test_kinds_of_layers():
    class Own(nn.BatchNorm1d):
        pass

    x = target(20, (3,))
    for layer in (Own(3, dtype=F64), nn.SyncBatchNorm(3, dtype=F64)):
        adapt_batch_statistics(layer, x.split(7))
        assert_same(statistics(layer), [x.mean(0), x.var(0)])
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3)).double()
    adapt_batch_statistics(model, [x])
    assert model[0].running_mean is None


def test_modes_are_restored_and_nothing_is_left_behind():
    model = mlp()
    model.train()
    model[1].eval()
    modes, x = [m.training for m in model.modules()], target()
    for options in (*WAYS.values(), {"sequential": False}):
        adapt_batch_statistics(model, x.split(10), **options)
        assert [m.training for m in model.modules()] == modes
        assert not any(m._forward_pre_hooks for m in model.modules())
        assert all(s.grad_fn is None and not s.requires_grad for s in statistics(model))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("options", [*WAYS.values(), {"sequential": False}], ids=[*WAYS, "one pass"])
def test_an_exception_leaves_the_model_as_it_was(options):
    class Broken:
        def __init__(self, good):
            self.left = good

        def __iter__(self):
            for batch in target().split(10):
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
                yield batch

    model = mlp()
    before, modes = statistics(model), [m.training for m in model.modules()]
    for good in (0, 2, 6):  # batches; a pass has four
        if good == 6 and "max_bytes" not in options:
            continue
        with pytest.raises(KeyboardInterrupt):
            adapt_batch_statistics(model, Broken(good), **options)
        assert_same(statistics(model), before, 0)
        assert [m.training for m in model.modules()] == modes
        assert not any(m._forward_pre_hooks for m in model.modules())


def test_adapted_goes_back():
    model, x = mlp(), target()
    before, expected = statistics(model), mlp()
    adapt_batch_statistics(expected, [x], mean=False)
    with pytest.raises(KeyError), adapted(model, x.split(10), mean=False, max_bytes=0) as same:
        assert same is model
        assert_same(statistics(model), statistics(expected))
        raise KeyError
    assert_same(statistics(model), before, 0)


def test_adapting_again_does_not_remember():
    model, expected, x = mlp(), mlp(seed=0), target()
    adapt_batch_statistics(model, [x + 5])
    adapt_batch_statistics(model, x.split(3), max_bytes=0)
    adapt_batch_statistics(expected, [x])
    assert_same(statistics(model), statistics(expected))


# ---- bad input -----------------------------------------------------------------------------------


def twice():
    layer = nn.BatchNorm1d(5, dtype=F64)
    return nn.Sequential(layer, layer)


class Unreached(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return x


class Mixed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.BatchNorm1d(5, dtype=F64), L1BatchNorm1d(5, dtype=F64))


class Seldom(nn.Module):
    """Normalises small batches only."""

    def __init__(self):
        super().__init__()
        self.always, self.small = (nn.BatchNorm1d(5, dtype=F64) for _ in range(2))

    def forward(self, x):
        x = self.always(x)
        return self.small(x) if len(x) < 5 else x


@pytest.mark.parametrize(
    "build,loader,options,error,message",
    [
        (lambda: nn.Linear(5, 2), [target()], {}, ValueError, "no batch normalisation layer with running"),
        (mlp, [], {}, ValueError, "the loader gives no data"),
        (mlp, [target()[:0]], {}, ValueError, "the loader gives no data"),
        (mlp, [], {"sequential": False}, ValueError, "the loader gives no data"),
        (mlp, [target()[:1]], {}, ValueError, "Expected more than 1 value per channel in the target data"),
        (mlp, [target()[:1]], {"max_bytes": 0}, ValueError, "Expected more than 1 value per channel"),
        (mlp, target().split(1), {"sequential": False}, ValueError, "Expected more than 1 value"),
        (mlp, [target() * float("nan")], {}, ValueError, "the statistics of the target data are not finite"),
        (mlp, [{"x": target()}], {}, TypeError, r"expected batches x or \(x, ...\) with a tensor x, got d"),
        (mlp, [()], {}, TypeError, "got tuple"),
        (mlp, [("text", 1)], {}, TypeError, "got str"),
        (twice, [target()], {}, ValueError, "a layer is used twice in a forward pass"),
        (Unreached, [target()], {}, ValueError, "calls none of its batch normalisation layers"),
        (Unreached, [target()], {"sequential": False}, ValueError, "calls none of its batch norm"),
        (nn.LazyBatchNorm1d, [target()], {}, ValueError, "the model has lazy layers"),
        (mlp, target(), {}, TypeError, "expected a list of batches or a DataLoader, got Tensor"),
        (mlp, None, {}, TypeError, "expected a list of batches or a DataLoader, got NoneType"),
        (Mixed, [target()], {}, ValueError, "the model has L1BatchNorm1d, which keeps averages that cannot"),
        (Seldom, [target()], {}, ValueError, "calls other layers, or in another order, for other data"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(build, loader, options, error, message):
    model = build()
    before = copy.deepcopy(statistics(model)) if not isinstance(model, nn.LazyBatchNorm1d) else None
    with pytest.raises(error, match=message) as caught:
        adapt_batch_statistics(model, loader, **options)
    assert "\n" not in str(caught.value)
    if before is not None:
        assert_same(statistics(model), before, 0)


def test_an_iterator_is_fine_for_one_pass_only():
    model, expected, x = mlp(), mlp(), target()
    for options in ({}, {"sequential": False}):
        adapt_batch_statistics(model, iter(x.split(10)), **options)
        adapt_batch_statistics(expected, x.split(10), **options)
        assert_same(statistics(model), statistics(expected))
    with pytest.raises(ValueError, match="the loader is an iterator, but more than one pass is needed"):
        adapt_batch_statistics(model, iter(x.split(10)), max_bytes=0)


def test_a_loader_that_gives_less_the_second_time():
    class Shrinking:
        size = 40

        def __iter__(self):
            self.size -= 1
            return iter(target(60)[: self.size].split(10))

    with pytest.raises(ValueError, match=r"the loader gave \d+ examples on one pass and \d+ on another"):
        adapt_batch_statistics(mlp(), Shrinking(), max_bytes=0)


# ---- several domains -----------------------------------------------------------------------------

LAYERS = {
    DomainSpecificBatchNorm1d: (nn.BatchNorm1d, (6, 3)),
    DomainSpecificBatchNorm2d: (nn.BatchNorm2d, (6, 3, 4, 4)),
    DomainSpecificBatchNorm3d: (nn.BatchNorm3d, (6, 3, 2, 3, 2)),
}


@pytest.mark.parametrize("cls", LAYERS)
def test_each_domain_is_a_batch_norm_of_its_own(cls):
    peer_cls, shape = LAYERS[cls]
    layer = cls(3, 2, eps=1e-3, momentum=0.3, dtype=F64)
    peers = [peer_cls(3, eps=1e-3, momentum=0.3, dtype=F64) for _ in range(2)]
    for step in range(4):
        k, x = step % 2, target(shape[0], shape[1:], seed=step).requires_grad_()
        layer.domain = k
        y, expected = layer(x), peers[k](x)
        assert torch.equal(y, expected)
        found = torch.autograd.grad(y.sin().sum(), [x, layer.domains[k].weight])
        assert_same(found, torch.autograd.grad(expected.sin().sum(), [x, peers[k].weight]), 0)
    for mine, peer in zip(layer.domains, peers, strict=True):
        assert all(torch.equal(mine.state_dict()[key], value) for key, value in peer.state_dict().items())
    assert torch.equal(layer.eval()(x), peers[1].eval()(x))


def test_shared_gain_and_bias():
    layer = DomainSpecificBatchNorm1d(3, 4, shared_affine=True, dtype=F64)
    assert [name for name, _ in layer.named_parameters()] == ["domains.0.weight", "domains.0.bias"]
    total = sum(
        layer(target(6, (3,), seed=k)).sin().sum() for k in range(4) if not setattr(layer, "domain", k)
    )
    total.backward()
    assert all(bn.weight.grad is layer.domains[0].weight.grad is not None for bn in layer.domains)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.float()):
        assert len({id(bn.weight) for bn in other.domains}) == 1
    with torch.no_grad():
        layer.domains[2].weight.fill_(5.0)
    assert layer.domains[0].weight.tolist() == [5.0] * 3
    own = DomainSpecificBatchNorm1d(3, 4)
    assert len(list(own.parameters())) == 8
    assert not list(DomainSpecificBatchNorm1d(3, 4, affine=False, shared_affine=True).parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_state_dict_goes_round(shared):
    layer = DomainSpecificBatchNorm1d(3, 2, shared_affine=shared)
    layer.domain = 1
    layer(target(6, (3,), dtype=torch.float32))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = DomainSpecificBatchNorm1d(3, 2, shared_affine=shared)
    loaded.load_state_dict(torch.load(file))
    assert loaded.domain == 0  # a mode, as train and eval
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in layer.state_dict().items())
    layer.reset_parameters()
    fresh = DomainSpecificBatchNorm1d(3, 2, shared_affine=shared).state_dict()
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in fresh.items())


def test_use_domain_and_adaptation_of_one_domain():
    torch.manual_seed(0)
    model = nn.Sequential(DomainSpecificBatchNorm1d(3, 3), nn.Linear(3, 2), DomainSpecificBatchNorm1d(2, 2))
    model.double()
    model[0].domain = 2
    before = copy.deepcopy(model.state_dict())
    x = target(20, (3,))
    with pytest.raises(KeyError), use_domain(model, 1) as same:
        assert same is model and (model[0].domain, model[2].domain) == (1, 1)
        adapt_batch_statistics(model, x.split(6))
        raise KeyError
    assert (model[0].domain, model[2].domain) == (2, 0)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"{i}.domains.1.running_{s}" for i in (0, 2) for s in ("mean", "var")}
    torch.testing.assert_close(model[0].domains[1].running_mean, x.mean(0), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="domain=2: give an int from 0 to 1"), use_domain(model, 2):
        pass
    assert (model[0].domain, model[2].domain) == (2, 0)


def test_domains_of_construction_and_bad_ones():
    layer = DomainSpecificBatchNorm2d(3, 2, device="meta", dtype=F64)
    assert {t.device.type for t in layer.state_dict().values()} == {"meta"}
    assert "shared_affine=False, domain=0" in repr(layer)
    for bad in (0, -1, 1.5, True, "two"):
        with pytest.raises(ValueError, match=r"^num_domains=.*: give a number of domains from 1"):
            DomainSpecificBatchNorm1d(3, bad)
    for bad in (-1, 2, 1.0, True, None):
        with pytest.raises(ValueError, match=r"^domain=.*: give an int from 0 to 1"):
            layer.domain = bad
    with pytest.raises(ValueError, match="no domain-specific"), use_domain(nn.Linear(2, 2), 0):
        pass
    with pytest.raises(ValueError, match=r"expected 4D input \(got 2D input\)"):
        DomainSpecificBatchNorm2d(3, 2)(torch.zeros(2, 3))
