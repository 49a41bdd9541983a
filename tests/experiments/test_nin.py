"""The networks of Table 2, each against something independent: torch's own layers, numpy, hand formulas."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import norms
from experiments.models.nin import (
    LinNIN,
    Maxout,
    NormPropNIN,
    Unit,
    max_norm_,
    maxout,
    unit_filters_,
)
from norms.build import METHODS

F64 = torch.float64
SHAPE = (3, 32, 32)
BATCH = partial(norms.build, "batch", dim=2)
PROPAGATION = {"gamma": 1 / 1.21}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def convs(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def sizes(model, shape, kinds):
    """Sizes [C, H, W] that the modules of the kinds put out, in order, for one image."""
    found = []
    for m in model.modules():
        if isinstance(m, kinds):
            m.register_forward_hook(lambda _, __, y: found.append(tuple(y.shape[1:])))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return found


# ---- parameters -------------------------------------------------------------------------------------------

# (inputs, outputs, size), by hand from the fact sheet
ARPIT = [(3, 192, 5), (192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1),
         (192, 192, 5), (192, 192, 1), (192, 10, 1)]  # fmt: skip
CIFAR = [(3, 192, 5), (192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1),
         (192, 192, 3), (192, 192, 1), (192, 10, 1)]  # fmt: skip
SVHN = [(3, 128, 5), (128, 96, 1), (96, 64, 1), (64, 320, 5), (320, 256, 1), (256, 128, 1),
        (128, 384, 5), (384, 256, 1), (256, 10, 1)]  # fmt: skip
MNIST = [(1, 96, 5), (96, 64, 1), (64, 48, 1), (48, 128, 5), (128, 96, 1), (96, 48, 1),
         (48, 128, 5), (128, 96, 1), (96, 10, 1)]  # fmt: skip


def weights(table):
    return sum(i * o * k * k for i, o, k in table)


def outputs(table):
    return sum(o for _, o, _ in table)


def test_weights_of_the_fact_sheet():
    assert weights(ARPIT) == 1_555_392
    for options in ({}, {"norm": BATCH}, {"propagation": PROPAGATION}, {"swap_padding": True}):
        assert sum(c.weight.numel() for c in convs(NormPropNIN(SHAPE, 10, **options))) == 1_555_392


@pytest.mark.parametrize("last", [False, True])
def test_parameters_of_arpit(last):
    hidden = outputs(ARPIT) - 10
    plain = weights(ARPIT) + hidden + 10
    assert count(NormPropNIN(SHAPE, 10, last=last)) == plain
    # gamma and beta for each bias; the last layer has a bias alone if no normaliser acts on it
    normalised = weights(ARPIT) + 2 * hidden + (20 if last else 10)
    assert count(NormPropNIN(SHAPE, 10, BATCH, last=last)) == normalised
    assert count(NormPropNIN(SHAPE, 10, propagation=PROPAGATION, last=last)) == normalised


def test_a_hundred_classes():
    assert count(NormPropNIN(SHAPE, 100)) - count(NormPropNIN(SHAPE, 10)) == 90 * (192 + 1)


@pytest.mark.parametrize(
    ("size", "table", "shape"),
    [("cifar", CIFAR, SHAPE), ("svhn", SVHN, SHAPE), ("mnist", MNIST, (1, 28, 28))],
)
def test_parameters_of_lin(size, table, shape):
    assert count(LinNIN(shape, 10, size=size)) == weights(table) + outputs(table)
    assert count(LinNIN(shape, 10, BATCH, size=size)) == weights(table) + 2 * outputs(table)


def test_parameters_of_maxout():
    # 33 -> 16 -> 15 -> 7 -> 9 -> 5 positions: poolings of cuda-convnet count a window that sticks out
    model = Maxout(SHAPE, 10)
    expected = [3 * 64 * 192, 192, 96 * 64 * 384, 384, 192 * 25 * 384, 384]
    expected += [192 * 25 * 2500, 2500, 500 * 10, 10]
    assert [p.numel() for p in model.parameters()] == expected
    assert model.layers[14].in_features == 4800


def test_width_multiplies_hidden_filters_only():
    assert [c.out_channels for c in convs(NormPropNIN(SHAPE, 7, width=1 / 16))] == [
        12, 10, 6, 12, 12, 12, 12, 12, 7]  # fmt: skip
    assert [c.out_channels for c in convs(LinNIN(SHAPE, 7, width=1 / 16))] == [
        12, 10, 6, 12, 12, 12, 12, 12, 7]  # fmt: skip
    model = Maxout(SHAPE, 7, width=1 / 16)
    assert [c.out_channels for c in convs(model)] == [12, 24, 24]
    assert [m.out_features for m in model.layers if isinstance(m, nn.Linear)] == [155, 7]


# ---- sizes ------------------------------------------------------------------------------------------------

TABLE = [
    (192, 32),
    (160, 32),
    (160, 16),
    (96, 16),
    (192, 16),
    (192, 16),
    (192, 8),
    (192, 8),
]  # as the sheet's


@pytest.mark.parametrize("options", [{}, {"norm": BATCH}, {"propagation": PROPAGATION}, {"last": True}])
@pytest.mark.parametrize(("swap", "seventh"), [(False, 4), (True, 8)])
def test_sizes_of_the_table(swap, seventh, options):
    kinds = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    expected = [*TABLE, (192, seventh), (192, 8), (10, 8)]
    model = NormPropNIN(SHAPE, 10, swap_padding=swap, **options)
    assert sizes(model, SHAPE, kinds) == [(c, n, n) for c, n in expected]
    poolings = [m for m in model.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    assert [type(m) for m in poolings] == [nn.MaxPool2d, nn.AvgPool2d]


@pytest.mark.parametrize(
    ("size", "shape", "sides"),
    [("cifar", SHAPE, (32, 16, 8)), ("svhn", SHAPE, (32, 16, 8)), ("mnist", (1, 28, 28), (28, 14, 7))],
)
def test_sizes_of_lin(size, shape, sides):
    a, b, c = sides
    found = sizes(LinNIN(shape, 10, size=size, width=1 / 16), shape, nn.Conv2d | nn.MaxPool2d)
    assert [n for _, n, _ in found] == [a, a, a, b, b, b, b, c, c, c, c]


def test_sizes_of_maxout():
    found = sizes(Maxout(SHAPE, 10, width=1 / 16), SHAPE, nn.Conv2d | nn.MaxPool2d)
    assert found == [(12, 33, 33), (6, 16, 16), (24, 15, 15), (12, 7, 7), (24, 9, 9), (12, 5, 5)]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 28, 28), (3, 40, 33), (2, 17, 17)])
@pytest.mark.parametrize("make", [
    NormPropNIN, partial(NormPropNIN, propagation=PROPAGATION), partial(NormPropNIN, norm=BATCH, last=True),
    LinNIN, Maxout,
])  # fmt: skip
def test_other_input_sizes_and_a_step(make, shape):
    model = make(shape, 5, width=1 / 32)
    y = model(torch.randn(3, *shape))
    assert y.shape == (3, 5)
    F.cross_entropy(y, torch.tensor([0, 1, 4])).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


# ---- values -----------------------------------------------------------------------------------------------


def propagated(x, layer, padding):
    """The paper's formula with the affine map on the pre-activation, written out position by position."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    w, gamma, beta = (p.detach().numpy() for p in (layer.weight, layer.gamma, layer.bias))
    k = w.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))  # [B, C, H, W, k, k]
    u = np.einsum("bchwij,ocij->bohw", windows, w) / np.sqrt((w**2).sum((1, 2, 3)))[:, None, None]
    z = np.maximum(gamma[:, None, None] * u + beta[:, None, None], 0)
    return (z - 1 / math.sqrt(2 * math.pi)) / math.sqrt((1 - 1 / math.pi) / 2)


@pytest.mark.parametrize("swap", [False, True])
def test_propagation_is_the_papers_formula(swap):
    model = NormPropNIN((3, 12, 12) if swap else (3, 20, 20), 4, propagation=PROPAGATION, width=1 / 32,
                        swap_padding=swap).double()  # fmt: skip
    for p in model.parameters():
        nn.init.normal_(p)
    x = torch.randn(2, 3, *((12, 12) if swap else (20, 20)), dtype=F64)
    c = convs(model)
    y = x.numpy()
    y = propagated(propagated(y, c[0], 2), c[1], 0)
    y = F.max_pool2d(torch.from_numpy(y), 3, 2, 1).numpy()
    for layer, padding in zip(c[2:5], (0, 2, 0), strict=True):
        y = propagated(y, layer, padding)
    y = F.avg_pool2d(torch.from_numpy(y), 3, 2, 1).numpy()  # the mean over nine, padding included
    for layer, padding in zip(c[5:8], (0, 2, 0) if swap else (0, 0, 2), strict=True):
        y = propagated(y, layer, padding)
    last = c[8]
    assert type(last) is nn.Conv2d
    expected = np.einsum("bchw,oc->bo", y, last.weight.detach().numpy()[:, :, 0, 0]) / y[0, 0].size
    expected += last.bias.detach().numpy()
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_propagation_options_and_last():
    model = NormPropNIN(SHAPE, 4, propagation={"gamma": 1, "activation": nn.PReLU()}, width=1 / 32, last=True)
    assert all(isinstance(c, norms.NormPropConv2d) for c in convs(model)) and len(convs(model)) == 9
    assert all((c.gamma == 1).all() and isinstance(c.activation, nn.PReLU) for c in convs(model))
    gammas = [c.gamma for c in convs(NormPropNIN(SHAPE, 4, propagation={}, width=1 / 32))[:-1]]
    assert all(torch.allclose(g, torch.tensor(1 / 1.21)) for g in gammas)  # NormProp's default


def sequential(swap, last):
    """The same network of torch's own layers, 1/32 of the width, 4 classes."""
    n = [6, 5, 3, 6, 6, 6, 6, 6, 4]
    seventh, eighth = (2, 0) if swap else (0, 2)
    layers, inputs = [], 3
    for k, (filters, size, padding) in enumerate(
        zip(n, (5, 1, 1, 5, 1, 1, 5, 1, 1), (2, 0, 0, 2, 0, 0, seventh, eighth, 0), strict=True)
    ):
        normal = k < 8 or last
        layers.append(nn.Conv2d(inputs, filters, size, 1, padding, bias=not normal))
        if normal:
            layers += [nn.BatchNorm2d(filters), nn.ReLU()]
        if k == 1:
            layers.append(nn.MaxPool2d(3, 2, 1))
        if k == 4:
            layers.append(nn.AvgPool2d(3, 2, 1))
        inputs = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("swap", [False, True])
def test_batch_version_is_torchs_layers(swap, last):
    model = NormPropNIN(SHAPE, 4, BATCH, width=1 / 32, swap_padding=swap, last=last).double()
    for p in model.parameters():
        nn.init.normal_(p)
    peer = sequential(swap, last).double()
    state = dict(zip(peer.state_dict(), model.state_dict().values(), strict=True))
    peer.load_state_dict(state)
    x = torch.randn(4, *SHAPE, dtype=F64)
    torch.testing.assert_close(model(x), peer(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.eval()(x), peer.eval()(x), rtol=1e-10, atol=1e-10)  # running averages


def test_lin_is_torchs_layers():
    model = LinNIN(SHAPE, 4, width=1 / 32).double().eval()
    c = convs(model)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    x = torch.randn(2, *SHAPE, dtype=F64)
    y = x
    for k, (layer, padding) in enumerate(zip(c, (2, 0, 0, 2, 0, 0, 1, 0, 0), strict=True)):
        y = F.relu(F.conv2d(y, layer.weight, layer.bias, padding=padding))
        if k in (2, 5):  # windows begin at 0, 2, 4, ...; the last one has two columns only
            y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-math.inf), 3, 2)
    torch.testing.assert_close(model(x), y.mean((2, 3)), rtol=1e-10, atol=1e-10)
    assert (model(x) >= 0).all()


def test_maxout_network_is_torchs_layers():
    model = Maxout(SHAPE, 4, width=1 / 32).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    first, second, third, fc, out = (m for m in model.layers if isinstance(m, nn.Conv2d | nn.Linear))
    x = y = torch.randn(2, *SHAPE, dtype=F64)

    def largest(z, k):
        return torch.stack([z[:, j::k] for j in range(k)]).max(0).values

    for layer, padding, pool in ((first, 4, 4), (second, 3, 4), (third, 3, 2)):
        y = largest(F.conv2d(y, layer.weight, layer.bias, padding=padding), 2)
        y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-math.inf), pool, 2)  # 33, 15, 9: one column beyond
    y = largest(y.flatten(1) @ fc.weight.T + fc.bias, 5)
    y = y @ out.weight.T + out.bias
    torch.testing.assert_close(model(x), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(4, 12), (4, 12, 5, 6)])
@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 12])
def test_maxout(size, pieces):
    x = torch.randn(size, dtype=F64)
    for given in (x, x.contiguous(memory_format=torch.channels_last) if len(size) == 4 else x):
        leaf, peer = given.clone().requires_grad_(), given.clone().requires_grad_()
        y = maxout(leaf, pieces)
        expected = torch.stack([peer[:, j::pieces] for j in range(pieces)]).max(0).values
        assert torch.equal(y, expected)
        g = torch.randn_like(y)
        y.backward(g)
        expected.backward(g)
        assert torch.equal(leaf.grad, peer.grad)


def test_maxout_gives_a_tie_to_one_piece():
    x = torch.zeros(1, 6, requires_grad=True)
    maxout(x, 3).sum().backward()
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 0, 0, 1, 1]


def test_maxout_keeps_channels_last():
    x = torch.randn(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    assert maxout(x, 2).is_contiguous(memory_format=torch.channels_last)


# ---- after a step -----------------------------------------------------------------------------------------


def lengths(layer):
    return np.sqrt((layer.weight.detach().numpy() ** 2).reshape(len(layer.weight), -1).sum(1))


def test_max_norm():
    model = Maxout(SHAPE, 4, width=1 / 32).double()
    layers = [m for m in model.layers if isinstance(m, nn.Conv2d | nn.Linear)]
    limits = (0.9, 1.9365, 1.9365, 1.9, 1.9365)
    for layer, limit in zip(layers, limits, strict=True):
        w = torch.randn_like(layer.weight)
        target = torch.linspace(0.2, 2, len(w), dtype=F64) * limit  # some below, some above
        with torch.no_grad():
            layer.weight.copy_(w / w.flatten(1).norm(dim=1).view(-1, *[1] * (w.dim() - 1)))
            layer.weight.mul_(target.view(-1, *[1] * (w.dim() - 1)))
    before = [m.weight.detach().numpy().copy() for m in layers]
    max_norm_(model)
    for layer, w, limit in zip(layers, before, limits, strict=True):
        norm = np.sqrt((w**2).reshape(len(w), -1).sum(1)).reshape(-1, *[1] * (w.ndim - 1))
        assert (norm < limit).any() and (norm > limit).any()
        np.testing.assert_allclose(layer.weight.detach().numpy(), w * np.minimum(1, limit / norm), rtol=1e-6)
        assert lengths(layer).max() <= limit
    assert all(p.requires_grad for p in model.parameters())


def test_max_norm_leaves_the_start_alone():
    model = Maxout(SHAPE, 4, width=1 / 16)
    before = [p.detach().clone() for p in model.parameters()]
    max_norm_(model)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("options", [{"norm": BATCH}, {"propagation": PROPAGATION}, {}])
def test_unit_filters(options, every):
    model = NormPropNIN(SHAPE, 4, width=1 / 32, **options).double()
    x = torch.randn(4, *SHAPE, dtype=F64)
    outcome = model(x).detach()
    before = [c.weight.detach().numpy().copy() for c in convs(model)]
    pointers = [c.weight.data_ptr() for c in convs(model)]
    unit_filters_(model, every=every)
    for k, (conv, w) in enumerate(zip(convs(model), before, strict=True)):
        if every or (options and k < 8):
            w = w / np.sqrt((w**2).sum((1, 2, 3), keepdims=True))
        np.testing.assert_allclose(conv.weight.detach().numpy(), w, rtol=1e-12)
    assert pointers == [c.weight.data_ptr() for c in convs(model)]
    if not every:  # length has no effect, but for batch normalisation's eps
        torch.testing.assert_close(model(x), outcome, rtol=1e-2, atol=1e-3)


def test_unit_filters_of_a_last_layer_and_of_zeros():
    model = NormPropNIN(SHAPE, 4, BATCH, width=1 / 32, last=True)
    with torch.no_grad():
        convs(model)[3].weight[1] = 0
    unit_filters_(model)
    found = np.concatenate([lengths(c) for c in convs(model)])
    assert np.isfinite(found).all() and (found == 0).sum() == 1
    np.testing.assert_allclose(found[found > 0], 1, rtol=1e-5)


# ---- initial values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm": BATCH}, {"propagation": PROPAGATION}])
def test_start_of_arpit(options):
    model = NormPropNIN(SHAPE, 10, width=1 / 2, **options)
    for conv in convs(model):
        o, i, k, _ = conv.weight.shape
        bound = math.sqrt(6 / ((i + o) * k * k))
        assert 0.97 * bound < conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
        assert conv.bias is None or (conv.bias == 0).all()
        if hasattr(conv, "gamma"):
            assert torch.allclose(conv.gamma, torch.tensor(1 / 1.21))


@pytest.mark.parametrize("width", [1 / 2, 1])
def test_start_of_lin(width):
    def check(model, stds):
        """The source's deviations; behind the first layer such that the product with sqrt(inputs) is kept."""
        for k, (conv, std) in enumerate(zip(convs(model), stds, strict=True)):
            std = std / math.sqrt(width) if k else std
            assert conv.weight.std().item() == pytest.approx(std, rel=0.1)
            assert (conv.bias == 0).all()
            beyond = (conv.weight.abs() > 2 * std).float().mean().item()  # of a Gaussian 4.55 %
            assert beyond == pytest.approx(0.0455, abs=0.02)

    check(LinNIN(SHAPE, 10, width=width), [0.05] * 9)
    check(LinNIN(SHAPE, 100, width=width, start=(0.001, 0.01, 0.01, 0.05)), [0.001, 0.01, 0.01, *[0.05] * 6])


@pytest.mark.parametrize("width", [1 / 4, 1])
def test_start_of_maxout(width):
    model = Maxout(SHAPE, 10, width=width)
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    for k, weight in enumerate(weights):
        bound = 0.005 / math.sqrt(width) if k else 0.005
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


# ---- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.make])
def test_every_normaliser(name):
    norm = partial(norms.build, name, dim=2)
    for make in (NormPropNIN, LinNIN):
        model = make(SHAPE, 3, norm, width=1 / 32)
        assert model(torch.randn(4, *SHAPE)).shape == (4, 3)
        for unit in (m for m in model.modules() if isinstance(m, Unit)):
            assert (unit.conv.bias is None) == (name not in ("none", "rms"))  # these two do not shift


def test_dropout():
    def rates(model):
        return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]

    def kinds(model):
        return [type(m) for m in model.layers]

    assert rates(NormPropNIN(SHAPE, 4, width=1 / 32)) == [0, 0]
    assert rates(NormPropNIN(SHAPE, 4, width=1 / 32, dropout=0.3)) == [0.3, 0.3]
    assert rates(LinNIN(SHAPE, 4, width=1 / 32)) == [0.5, 0.5]
    assert rates(Maxout(SHAPE, 4, width=1 / 32)) == [0.2, 0.5, 0.5, 0.5, 0.5]
    for model in (NormPropNIN(SHAPE, 4, width=1 / 32), LinNIN(SHAPE, 4, width=1 / 32)):
        behind = [a for a, b in zip(kinds(model), kinds(model)[1:], strict=False) if b is nn.Dropout]
        assert all(kind in (nn.MaxPool2d, nn.AvgPool2d) for kind in behind)


def test_memory_is_channels_last():
    for model in (NormPropNIN(SHAPE, 4, propagation={}), LinNIN(SHAPE, 4), Maxout(SHAPE, 4, width=1 / 8)):
        assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convs(model))


def test_errors():
    with pytest.raises(ValueError, match="6 channels are not a multiple of pieces=4"):
        maxout(torch.zeros(2, 6, 3, 3), 4)
    with pytest.raises(ValueError, match="pieces=0"):
        maxout(torch.zeros(2, 6), 0)
    with pytest.raises(ValueError, match="give norm or propagation"):
        NormPropNIN(SHAPE, 10, BATCH, propagation={})
    with pytest.raises(ValueError, match="size='stl': choose one of cifar, svhn, mnist"):
        LinNIN(SHAPE, 10, size="stl")
    with pytest.raises(ValueError, match="images of 16x16 are too small: 4 positions reach C"):
        NormPropNIN((3, 16, 16), 10)  # layer 7 has no padding
    assert NormPropNIN((3, 16, 16), 10, width=1 / 32, swap_padding=True)(torch.randn(2, 3, 16, 16)).ndim == 2
    with pytest.raises(ValueError, match="are too small"):
        Maxout((3, 2, 2), 10)
    with pytest.raises(ValueError, match="gamma"):
        NormPropNIN(SHAPE, 10, propagation={"gamma": -1})
